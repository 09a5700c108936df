"""Summaries of a network: how sparse its weights are, what each layer computes, what it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pocketprune.graph.nodes import arguments, node_shape
from pocketprune.graph.tracing import ExampleInputs, module_path, operator_name, trace
from pocketprune.structure.cost import node_macs
from pocketprune.structure.macs import MACS

SHARES = ("columns", "rows", "channels", "kernels", "filters", "elements")


@dataclass(frozen=True)
class WeightRow:
    """One weight.

    Attributes:
        name: of the parameter.
        shape: its shape.
        numbers: how many numbers it has.
        nonzero: how many of them are not zero.
        zero: the share of all-zero columns and rows (of a matrix), channels, kernels and filters (of a convolution),
            and of zeros, by the names in `SHARES`.
        deviation, mean, magnitude: standard deviation, mean, and mean absolute value.
    """

    name: str
    shape: tuple[int, ...]
    numbers: int
    nonzero: int
    zero: dict[str, float]
    deviation: float
    mean: float
    magnitude: float


@dataclass(frozen=True)
class LayerRow:
    """One operator that multiplies.

    Attributes:
        name: of the module, or of the node.
        kind: the operator.
        attributes: kernel, stride and groups where it has them, for people.
        inputs, outputs: shapes without the batch.
        weights: how many numbers its weight has.
        macs: multiply-adds for one input.
    """

    name: str
    kind: str
    attributes: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: int
    macs: int


def weight_rows(net: nn.Module) -> list[WeightRow]:
    """Return one row for each weight of two axes or more."""
    rows = []
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            weight = parameter.detach()
            values = weight.double()
            rows.append(
                WeightRow(
                    name,
                    tuple(weight.shape),
                    weight.numel(),
                    int((weight != 0).sum()),
                    _shares(weight),
                    float(values.std(correction=0)),
                    float(values.mean()),
                    float(values.abs().mean()),
                )
            )
    return rows


def _shares(weight: Tensor) -> dict[str, float]:
    """Return the shares of structures that are all zero."""
    zero = weight == 0
    found = dict.fromkeys(SHARES, 0.0)
    found["elements"] = _share(zero.flatten())
    rows, columns = zero.flatten(1).all(1), zero.transpose(0, 1).flatten(1).all(1)
    if weight.dim() == 2:
        return found | {"rows": _share(rows), "columns": _share(columns)}
    kernels = zero.flatten(2).all(2)
    return found | {"filters": _share(rows), "channels": _share(columns), "kernels": _share(kernels.flatten())}


def _share(zero: Tensor) -> float:
    return float(zero.double().mean())


def layer_rows(net: nn.Module, example_inputs: ExampleInputs) -> list[LayerRow]:
    """Return one row for each operator that multiplies, in forward order.

    Raises:
        UserError: the network cannot be traced.
    """
    traced = trace(net, example_inputs)
    rows = []
    for node in traced.call_nodes():
        if operator_name(node) not in MACS:
            continue
        shapes = [node_shape(each) for each in (arguments(node)[0], node) if hasattr(each, "meta")]
        owned = [each for each in arguments(node)[1:2] if each in traced.tensor_names]
        path = module_path(node)
        rows.append(
            LayerRow(
                path or node.name,
                operator_name(node),
                _attributes(net, path),
                shapes[0][1:],
                shapes[-1][1:],
                sum(math.prod(node_shape(each)) for each in owned),
                node_macs(traced, node),
            )
        )
    return rows


def _attributes(net: nn.Module, path: str) -> str:
    module = dict(net.named_modules()).get(path)
    if not isinstance(module, nn.modules.conv._ConvNd):
        return ""
    kernel = "x".join(map(str, module.kernel_size))
    return f"k={kernel} s={'x'.join(map(str, module.stride))}" + (f" g={module.groups}" if module.groups > 1 else "")


def module_lines(net: nn.Module) -> Sequence[tuple[str, str, int]]:
    """Return (name, type, parameters of its own and below) of every module, the network first."""
    return [
        (name or type(net).__name__, type(module).__name__, sum(p.numel() for p in module.parameters()))
        for name, module in net.named_modules()
    ]
