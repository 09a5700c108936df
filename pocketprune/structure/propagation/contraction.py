"""Layers that sum over channels with a weight: convolution, linear, embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from pocketprune.graph.nodes import arguments, schema_of
from pocketprune.structure.propagation.rules import ConstantSum, Contraction, State, argument, opaque_result, origin_of
from pocketprune.structure.propagation.values import Identified, along_axis, varying, vector


def along(state: State, value: Identified, axis: int) -> Tensor | None:
    """Identities along one axis of a value, the others made uniform; None where it has none."""
    for facet in value.facets:
        if axis in varying(facet):
            return vector(state.identities, facet, axis)
    return None


def meet(
    state: State, node: fx.Node, first: Tensor | None, second: Tensor | None, values: tuple[Identified, Identified]
) -> None:
    """Two ends of a summed axis: they are one, or whichever is there stays."""
    if first is not None and second is not None:
        state.identities.unite(first, second)
    elif first is not None:
        state.refuse(node, first, "read", other=origin_of(values[1]))
    elif second is not None:
        state.refuse(node, second, "read", other=origin_of(values[0]))


def note_operands(state: State, node: fx.Node, values: tuple[Identified, Identified], inputs: Tensor | None) -> None:
    """Remember what a layer multiplies by; of a layer that reads constants, that it sums over their channels."""
    source, weight = arguments(node)[:2]
    state.weights.append(weight)
    if inputs is not None and all(value.constant for value in values):
        sources = (source,) if weight in state.tensor_of_node else (source, weight)  # its own weight is no statistic
        state.sums.append(ConstantSum(node, inputs, sources))


def weight_name(state: State, arg: Any) -> tuple[str | None, bool]:
    """Name of the parameter or buffer behind an argument, and whether the argument is that tensor itself."""
    plain = True
    while isinstance(arg, fx.Node) and arg not in state.tensor_of_node:
        arg, plain = (arg.args[0] if arg.op == "call_function" and arg.args else None), False
    return (state.tensor_of_node.get(arg), plain) if isinstance(arg, fx.Node) else (None, plain)


@dataclass(frozen=True)
class _Convolution:
    """The identities around one convolution.

    inputs: of its input channels; rows, columns: of the weight's output and input axis (one group's share: the
    columns of a convolution, the rows of a transposed one); None where there are none.
    """

    node: fx.Node
    values: tuple[Identified, Identified]
    inputs: Tensor | None
    rows: Tensor | None
    columns: Tensor | None
    groups: int
    transposed: bool


def convolution(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Of any dimension; transposed, grouped and depthwise."""
    source, weight, bias = (argument(node, args, kwargs, n) for n in ("input", "weight", "bias"))
    name = schema_of(node).name
    transposed = "transpose" in name or (name.endswith("::convolution") and args[6])
    axis = source.dim - weight.dim + 1  # 0 for a convolution without a batch axis
    for facet in source.facets:
        if axis not in varying(facet):
            state.refuse(node, facet, "axis")
    rows, columns = (along(state, weight, a) for a in ((1, 0) if transposed else (0, 1)))
    layer = _Convolution(
        node,
        (source, weight),
        along(state, source, axis),
        rows,
        columns,
        argument(node, args, kwargs, "groups"),
        transposed,
    )
    outputs, carrier = _outputs(state, layer, source.shape[axis])
    note_operands(state, node, layer.values, layer.inputs)
    if isinstance(bias, Identified):
        meet(state, node, outputs, along(state, bias, 0), (opaque_result(node), bias))
    tensor, plain = weight_name(state, node.args[1])
    state.contractions.append(
        Contraction(
            node,
            "conv_transpose" if transposed else "conv",
            arguments(node)[0],
            tensor,
            weight_name(state, argument(node, node.args, node.kwargs, "bias"))[0],
            layer.inputs,
            outputs,
            layer.groups,
            carrier,
            plain,
        )
    )
    return with_channels(node, outputs, axis)


def _outputs(state: State, layer: _Convolution, channels: int) -> tuple[Tensor | None, bool]:
    """Identities of the output channels, and whether what goes in decides what comes out."""
    if layer.groups == 1:
        meet(state, layer.node, layer.inputs, layer.columns, layer.values)
        return layer.rows, False
    if layer.inputs is not None and layer.groups > channels // layer.groups:
        return _whole_groups(state, layer, layer.inputs), True
    return _within_groups(state, layer), False


def _whole_groups(state: State, layer: _Convolution, inputs: Tensor) -> Tensor | None:
    """The unit is a group: its inputs and outputs go together (depthwise: one channel with its multiplier)."""
    groups, narrow, wide = layer.groups, layer.columns, layer.rows  # of the weight's axes
    if layer.transposed:
        narrow, wide = wide, narrow
    if narrow is not None:
        state.refuse(layer.node, narrow, "groups")
    if wide is None:
        meet(state, layer.node, inputs, None, layer.values)
        return None
    first = inputs.view(groups, -1)[:, :1]
    for ids in (inputs, wide):
        table = ids.view(groups, -1)
        state.identities.unite(table, first.expand(table.shape))
    if not layer.transposed:
        return wide
    per_group = layer.values[1].shape[1]
    return first.expand(groups, per_group).reshape(-1)


def _within_groups(state: State, layer: _Convolution) -> Tensor | None:
    """The unit is the same place in every group: all groups stay and become narrower alike."""
    repeated = layer.rows if layer.transposed else layer.columns
    repeated = repeated.repeat(layer.groups) if repeated is not None else None
    wide_in, wide_out = (layer.columns, repeated) if layer.transposed else (repeated, layer.rows)
    meet(state, layer.node, layer.inputs, wide_in, layer.values)
    for wide in (wide_in, wide_out):
        if wide is not None:
            table = wide.view(layer.groups, -1)
            state.identities.unite(table, table[:1].expand(table.shape))
    return wide_out


def with_channels(node: fx.Node, ids: Tensor | None, axis: int) -> Identified:
    """The node's value with these identities along one axis."""
    result: Identified = opaque_result(node)
    if ids is not None:
        result.facets = [along_axis(ids, result.shape, axis)]
    return result


def linear(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Linear layers: y = x Wᵀ + b over the last axis; the other axes pass."""
    source, weight, bias = (argument(node, args, kwargs, n) for n in ("input", "weight", "bias"))
    last = source.dim - 1
    inputs, columns = along(state, source, last), along(state, weight, weight.dim - 1)
    rows = along(state, weight, 0) if weight.dim > 1 else None
    meet(state, node, inputs, columns, (source, weight))
    note_operands(state, node, (source, weight), inputs)
    if isinstance(bias, Identified):
        meet(state, node, rows, along(state, bias, 0), (opaque_result(node), bias))
    tensor, plain = weight_name(state, node.args[1])
    state.contractions.append(
        Contraction(
            node,
            "linear",
            arguments(node)[0],
            tensor,
            weight_name(state, argument(node, node.args, node.kwargs, "bias"))[0],
            inputs,
            rows,
            plain=plain,
        )
    )
    passing = [f for f in source.facets if varying(f) and last not in varying(f)]
    if weight.dim == 1:
        return Identified(source.shape[:-1], [f.select(last, 0) for f in passing])
    result = with_channels(node, rows, last)
    result.facets += [f[..., :1].expand(result.shape) for f in passing]
    return result


def embedding(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rows of a table: a producer of its columns."""
    columns, entries = along(state, args[0], 1), along(state, args[0], 0)
    if entries is not None:
        state.refuse(node, entries, "index")
    tensor, plain = weight_name(state, node.args[0])
    state.contractions.append(
        Contraction(node, "embedding", arguments(node)[1], tensor, None, None, columns, plain=plain)
    )
    return with_channels(node, columns, len(node.meta["val"].shape) - 1)
