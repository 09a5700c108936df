"""Tables for the terminal: what became of each layer, what can be pruned."""

import math
from collections.abc import Sequence

from pocketprune.channel_pruning.results import LayerResult
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows of cells as aligned text, the first row its head; columns in `left` are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def count(number: float) -> str:
    """Return a count in short: 1234567 as '1.23 M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def layer_table(layers: Sequence[LayerResult]) -> str:
    """Return what pruning did to each layer. Errors are shares of its output's variance, without and with refit."""
    rows = [["", "layer", "channels", "kept", "error", "refitted", "note"]]
    for layer in layers:
        errors = [_error(layer.error_before), _error(layer.error_after)]
        sizes = [str(layer.channels), str(layer.kept)]
        rows.append([str(layer.index), layer.name, *sizes, *errors, layer.note])
    return table(rows, left=(1, 6))


def layer_listing(layers: Sequence[PrunableLayer]) -> str:
    """Return the prunable layers, numbered as in a ratio list: what can be removed from each, or why nothing can."""
    rows = [["", "layer", "in", "out", "kernel", "MACs", "input from", "can input channels be removed?"]]
    for layer in layers:
        sizes = [str(layer.channels), str(layer.out_channels), _kernel(layer.kernel), count(layer.macs)]
        verdict = ("yes" if layer.removable else "no") + (f": {layer.reason}" if layer.reason else "")
        rows.append([str(layer.index), layer.name, *sizes, layer.input_from, verdict])
    return table(rows, left=(1, 6, 7))


def group_listing(groups: Sequence[ChannelGroup]) -> str:
    """Return the channel groups: what writes and reads each, and why its channels cannot be removed if so."""
    rows = [["channel group", "channels", "written by -> read by", "can channels be removed?"]]
    for group in groups:
        path = f"{_few(group.producers)} -> {_few((*group.consumers, *group.products)) or 'nothing'}"
        verdict = ("yes" if group.exact else "inexact") if group.prunable else f"no: {group.reason}"
        rows.append([group.name, str(group.size), path, verdict])
    return table(rows, left=(0, 2, 3))


def _few(names: Sequence[str], most: int = 2) -> str:
    """Return the first names, joined, and how many more there are."""
    return " + ".join([*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])])


def _error(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _kernel(kernel: Sequence[int] | int) -> str:
    return str(kernel) if isinstance(kernel, int) else "x".join(map(str, kernel))
