"""Distiller's summaries of a network, as text."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.summaries import layer_rows, module_lines, weight_rows

SUMMARIES = ("sparsity", "compute", "model")


def model_summary(model: nn.Module, what: str, dummy_input: ExampleInputs) -> str:
    """Return a summary of a network.

    Args:
        model: the network.
        what: "sparsity", "compute" or "model".
        dummy_input: an input, for "compute".

    Raises:
        UserError: another summary, or a network that cannot be traced.
    """
    if what not in SUMMARIES:
        raise UserError(f"'{what}' given{nearest(what, SUMMARIES)}", argument="summary")
    if what == "sparsity":
        return weights_sparsity_summary(model)
    return model_performance_summary(model, dummy_input) if what == "compute" else _modules(model)


def weights_sparsity_summary(model: nn.Module) -> str:
    """Return a table of the weights: how many numbers, and the shares of zeros and of all-zero structures."""
    head = ["Name", "Shape", "NNZ (dense)", "NNZ (sparse)", "Cols (%)", "Rows (%)", "Ch (%)", "2D (%)", "3D (%)",
            "Fine (%)", "Std", "Mean", "Abs-Mean"]  # fmt: skip
    rows = weight_rows(model)
    lines = [
        [
            row.name,
            str(row.shape),
            f"{row.numbers:,}",
            f"{row.nonzero:,}",
            *(f"{100 * share:.2f}" for share in row.zero.values()),
            f"{row.deviation:.5f}",
            f"{row.mean:.5f}",
            f"{row.magnitude:.5f}",
        ]
        for row in rows
    ]
    numbers, left = sum(row.numbers for row in rows), sum(row.nonzero for row in rows)
    total = f"Total sparsity: {100 * (1 - left / numbers) if numbers else 0:.2f}"
    return f"{_table([head, *lines], 2)}\n{total}  ({left:,} of {numbers:,} weights are not zero)"


def model_performance_summary(model: nn.Module, dummy_input: ExampleInputs) -> str:
    """Return a table of the layers: shapes, weights and multiply-adds for one input."""
    rows = layer_rows(model, dummy_input)
    head = ["Name", "Type", "Attrs", "IFM", "OFM", "Weights volume", "MACs"]
    lines = [
        [row.name, row.kind, row.attributes, str(row.inputs), str(row.outputs), f"{row.weights:,}", f"{row.macs:,}"]
        for row in rows
    ]
    return f"{_table([head, *lines], 5)}\nTotal MACs: {sum(row.macs for row in rows):,}"


def _modules(model: nn.Module) -> str:
    lines = [[name, kind, f"{count:,}"] for name, kind, count in module_lines(model)]
    return _table([["Name", "Type", "Parameters"], *lines], 2)


def _table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of cells as text, the first so many columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
