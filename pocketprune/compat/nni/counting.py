"""NNI's counter of operations and parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.tracing import ExampleInputs, module_path, trace
from pocketprune.structure.elementwise_cost import extra_operations, layer_macs

MODES = ("default", "full")


def count_flops_params(
    model: nn.Module,
    x: ExampleInputs | tuple[int, ...],
    custom_ops: Any = None,
    verbose: bool = True,
    mode: str = "default",
) -> tuple[int, int, list[dict[str, Any]]]:
    """Return the operations for one input, the parameters, and both layer by layer.

    Args:
        model: the network.
        x: an input, or its shape.
        custom_ops: none are needed: every operator of the traced network is known by name.
        verbose: whether to print the table.
        mode: "default" counts convolutions, linear and recurrent layers, without the addition of biases; "full" also
            biases, batch norms, activations, pooling and resizing, each as NNI does.

    Raises:
        UserError: another mode, custom counters, or a network that cannot be traced.
    """
    if mode not in MODES:
        raise UserError(f"'{mode}' given{nearest(mode, MODES)}", argument="mode")
    if custom_ops:
        raise UserError("given; operators are counted by name, in modules and functions alike", argument="custom_ops")
    is_shape = isinstance(x, (tuple, list)) and all(isinstance(size, int) for size in x)
    traced = trace(model, torch.rand(*x) if is_shape else x)
    counts = layer_macs(traced)
    if mode == "full":
        for node, extra in extra_operations(traced).items():
            counts[node] = counts.get(node, 0) + extra
    results = _rows(model, counts)
    flops, params = sum(row["flops"] for row in results), sum(row["params"] for row in results)
    if verbose:
        width = max((len(row["name"]) for row in results), default=0)
        for row in results:
            print(f"{row['name']:{width}}  {row['weight_shape']!s:>20}  {row['flops']:>16,}  {row['params']:>14,}")
        print(f"FLOPs total: {flops:,}\n#Params total: {params:,}")
    return flops, params, results


def _rows(model: nn.Module, counts: dict[fx.Node, int]) -> list[dict[str, Any]]:
    """Return one row for each module that computes something, or for each function outside of any."""
    modules = dict(model.named_modules())
    rows: dict[str, dict[str, Any]] = {}
    for node, operations in counts.items():
        path = module_path(node)
        module = modules.get(path)
        is_leaf = module is not None and not any(True for _ in module.children())
        name = path if is_leaf else node.name
        own = list(module.parameters(recurse=False)) if is_leaf and module is not None else []
        weight = getattr(module, "weight", None) if is_leaf else None
        row = rows.setdefault(
            name,
            {
                "name": name,
                "module_type": type(module).__name__ if is_leaf else "function",
                "weight_shape": tuple(weight.shape) if isinstance(weight, Tensor) else None,
                "flops": 0,
                "params": sum(parameter.numel() for parameter in own),
            },
        )
        row["flops"] += operations
    return list(rows.values())
