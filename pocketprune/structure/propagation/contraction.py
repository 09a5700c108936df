"""Operators that sum over channels: convolution, linear, matmul, einsum, attention, embedding."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..tracing import describe
from .elementwise import unite_elementwise
from .rules import Contraction, State, argument, identified_in, opaque_result
from .values import Identified, along_axis, only_along, varying


def _vector(state: State, value: Identified, axis: int) -> Tensor | None:
    """Identities along one axis of a value, the others made uniform; None where it has none."""
    for facet in value.facets:
        if axis in varying(facet):
            return only_along(state.identities, facet, axis)
    return None


def _pin_rest(state: State, node: fx.Node, value: Identified, axes: set[int]) -> None:
    """Pin what varies along other axes only: those are summed over in another way, or do not carry channels."""
    for facet in value.facets:
        if varying(facet) and not set(varying(facet)) & axes:
            state.identities.pin(facet, f"{describe(node)}: channels are read along another axis")


def _meet(state: State, node: fx.Node, a: Tensor | None, b: Tensor | None) -> None:
    """Two ends of a summed axis: they are one, or whichever is there stays."""
    if a is not None and b is not None:
        state.identities.unite(a, b)
    elif (alone := a if a is not None else b) is not None:
        state.identities.pin(alone, f"{describe(node)}: it reads a value that cannot be thinned "
                                    "(a network input, or one named elsewhere)")


def convolution(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """conv1d/2d/3d and transposed, grouped and depthwise."""
    source, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    groups = argument(node, args, kwargs, "groups")
    name = node.target._schema.name
    transposed = "transpose" in name or (name.endswith("::convolution") and args[6])
    if source.dim == weight.dim - 1:
        return state.opaque(node, identified_in(args), "a convolution without a batch axis")
    _pin_rest(state, node, source, {1})
    inputs = _vector(state, source, 1)
    rows, columns = (_vector(state, weight, 1), _vector(state, weight, 0)) if transposed else (
        _vector(state, weight, 0), _vector(state, weight, 1))
    kind = "conv_transpose" if transposed else "conv"
    carrier, outputs = groups > 1, rows
    if groups == 1:
        _meet(state, node, inputs, columns)
    elif removes_whole_groups(source.shape[1], groups):
        outputs = _whole_groups(state, node, inputs, rows, columns, groups, transposed)
    else:
        carrier, outputs = False, _within_groups(state, node, inputs, rows, columns, groups, transposed)
    if isinstance(bias, Identified) and outputs is not None and bias.facets:
        state.identities.unite(outputs, bias.facets[0])
    state.contractions.append(Contraction(
        node, kind, node.args[0], _name(state, node, 1), _name(state, node, 2), inputs, outputs, groups, carrier))
    return _with_channels(node, outputs, 1)


def removes_whole_groups(in_channels: int, groups: int) -> bool:
    """Whether the unit of a grouped convolution is a group (finer) rather than a place within every group."""
    return groups > 1 and groups > in_channels // groups


def _whole_groups(state: State, node: fx.Node, inputs: Tensor | None, rows: Tensor | None, columns: Tensor | None,
                  groups: int, transposed: bool) -> Tensor | None:
    """The unit is a group: its inputs and outputs go together (depthwise: one channel with its multiplier)."""
    if transposed:  # axis 0 of the weight runs over the inputs, axis 1 over the outputs of one group
        per_group = rows.shape[0] if rows is not None else 1
        if rows is not None:
            state.identities.pin(rows, f"{describe(node)}: whole groups are removed")
        if columns is None or inputs is None:
            _meet(state, node, inputs, columns)
            return None
        state.identities.unite(inputs, columns)
        first = columns.view(groups, -1)[:, :1]
        state.identities.unite(columns.view(groups, -1), first.expand(groups, columns.numel() // groups))
        return first.expand(groups, per_group).reshape(-1)
    if columns is not None:
        state.identities.pin(columns, f"{describe(node)}: whole groups are removed")
    if rows is None or inputs is None:
        _meet(state, node, inputs, rows)
        return rows
    first = inputs.view(groups, -1)[:, :1]
    state.identities.unite(inputs.view(groups, -1), first.expand(groups, inputs.numel() // groups))
    state.identities.unite(rows.view(groups, -1), first.expand(groups, rows.numel() // groups))
    return rows


def _within_groups(state: State, node: fx.Node, inputs: Tensor | None, rows: Tensor | None, columns: Tensor | None,
                   groups: int, transposed: bool) -> Tensor | None:
    """The unit is the same place in every group: all groups stay and become narrower alike."""
    wide_in, wide_out = (columns, rows.repeat(groups) if rows is not None else None) if transposed else (
        columns.repeat(groups) if columns is not None else None, rows)
    _meet(state, node, inputs, wide_in)
    for wide in (wide_in, wide_out):
        if wide is not None:
            table = wide.view(groups, -1)
            state.identities.unite(table, table[:1].expand(table.shape))
    return wide_out


def _with_channels(node: fx.Node, ids: Tensor | None, axis: int) -> Identified:
    result: Identified = opaque_result(node)
    if ids is not None:
        result.facets = [along_axis(ids, result.shape, axis)]
    return result


def _name(state: State, node: fx.Node, position: int) -> str | None:
    """Name of the parameter or buffer behind an argument, also where it was moved about first."""
    arg = node.args[position] if len(node.args) > position else None
    while isinstance(arg, fx.Node) and arg not in state.tensor_of_node:
        arg = arg.args[0] if arg.op == "call_function" and arg.args else None
    return state.tensor_of_node.get(arg) if isinstance(arg, fx.Node) else None


@dataclass(frozen=True)
class _Side:
    """One operand of a product: its value and the label of each of its axes."""

    value: Identified
    labels: str


def product(state: State, node: fx.Node, sides: tuple[_Side, _Side], out: str) -> Identified:
    """The node is a product of two labelled values; one with a weight is a consumer and a producer."""
    result: Identified = opaque_result(node)
    found = _meet_labels(state, node, sides, out)
    result.facets = [along_axis(ids, result.shape, out.index(label)) for label, ids in found.items() if label in out]
    owners = [{state.identities.owner(f) for f in side.value.facets} - {None} for side in sides]
    if bool(owners[0]) != bool(owners[1]):
        at = 0 if owners[0] else 1
        weight, data = sides[at], sides[1 - at]
        summed = next((found[x] for x in weight.labels if x in data.labels and x not in out and x in found), None)
        free = next((found[x] for x in weight.labels if x in out and x not in data.labels and x in found), None)
        state.contractions.append(Contraction(node, "matmul", _operands(node)[1 - at], sorted(owners[at])[0], None,
                                              summed, free))
    return result


def _operands(node: fx.Node) -> list[fx.Node]:
    nodes = node.args[1] if isinstance(node.args[1], (list, tuple)) else node.args
    return list(nodes)[-2:]


def _meet_labels(state: State, node: fx.Node, sides: tuple[_Side, _Side], out: str) -> dict[str, Tensor]:
    """Identities along each label after the two operands have met; labels with none are absent.

    Labels of both operands but not of `out` are summed, labels of all three are batch. Heads of an attention are
    batch labels: with attention="heads" they are the unit and what lies within one belongs to it; with "widths"
    every head stays and all become narrower alike.
    """
    shared = set(sides[0].labels) & set(sides[1].labels)
    found: dict[str, dict[int, Tensor]] = {}
    for index, side in enumerate(sides):
        for facet in side.value.facets:
            if axes := varying(facet):
                label = _direction(state, [side.labels[a] for a in axes], shared, out)
                ids = only_along(state.identities, facet, side.labels.index(label))
                _meet(state, node, ids, found.setdefault(label, {}).setdefault(index, ids))
    for label, ends in list(found.items()):
        (first, ids), *_ = ends.items()
        other = sides[1 - first]
        if len(ends) == 2:
            state.identities.unite(ids, ends[1])
        elif label in shared and other.value.shape[other.labels.index(label)] > 1:
            _meet(state, node, ids, None)
            del found[label]
    return {label: next(iter(ends.values())) for label, ends in found.items()}


def _direction(state: State, labels: list[str], shared: set[str], out: str) -> str:
    """The one label a facet keeps when it varies along several."""
    batch = [label for label in labels if label in shared and label in out]
    inner = [label for label in labels if label not in batch]
    if batch and (state.attention == "heads" or not inner):
        return batch[-1]
    summed = [label for label in inner if label in shared]
    return (summed or inner)[-1]


def linear(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """y = x Wᵀ + b over the last axis."""
    source, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    last = source.dim - 1
    inputs, columns, rows = _last_axis(state, node, source), _vector(state, weight, 1), _vector(state, weight, 0)
    _meet(state, node, inputs, columns)
    if isinstance(bias, Identified) and rows is not None and bias.facets:
        state.identities.unite(rows, bias.facets[0])
    state.contractions.append(Contraction(node, "linear", node.args[0], _name(state, node, 1), _name(state, node, 2),
                                          inputs, rows))
    result = _with_channels(node, rows, last)
    result.facets += [f[..., :1].expand(result.shape) for f in source.facets
                      if varying(f) and last not in varying(f)]
    return result


def _last_axis(state: State, node: fx.Node, source: Identified) -> Tensor | None:
    return _vector(state, source, source.dim - 1)


def matmul(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """matmul, mm, bmm of at least two axes each, batch axes broadcast."""
    a, b = args[0], args[1]
    if a.dim < 2 or b.dim < 2:
        return state.opaque(node, [a, b], "a product with a vector")
    letters = "abcdefgh"[:max(a.dim, b.dim) - 2]
    sides = (_Side(a, letters[len(letters) - a.dim + 2:] + "mk"), _Side(b, letters[len(letters) - b.dim + 2:] + "kn"))
    return product(state, node, sides, letters + "mn")


def addmm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """bias + a @ b."""
    result = product(state, node, (_Side(args[1], "mk"), _Side(args[2], "kn")), "mn")
    return unite_elementwise(state, node, [result, args[0]])


def einsum(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """einsum of two operands with an explicit result and no repeated or ellipsis labels."""
    equation, operands = args[0].replace(" ", ""), list(args[1])
    terms, _, out = equation.partition("->")
    labels = terms.split(",")
    plain = len(operands) == 2 and out and "." not in equation and all(len(set(t)) == len(t) for t in labels)
    if not plain:
        return state.opaque(node, identified_in(args), f"einsum '{equation}' is not followed")
    return product(state, node, (_Side(operands[0], labels[0]), _Side(operands[1], labels[1])), out)


def attention(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """scaled_dot_product_attention as two products, queries sharing keys where heads are grouped."""
    query, key, value = args[0], args[1], args[2]
    mask = argument(node, args, kwargs, "attn_mask")
    if query.dim < 3:
        return state.opaque(node, identified_in(args), "attention without a head axis")
    if query.dim > 3 and query.shape[-3] != key.shape[-3]:
        key, value = (_repeat_heads(v, query.shape[-3]) for v in (key, value))
    batch = "abcdefgh"[:query.dim - 2]
    found = _meet_labels(state, node, (_Side(query, batch + "mk"), _Side(key, batch + "nk")), batch + "mn")
    scores = Identified((*query.shape[:-1], key.shape[-2]))
    scores.facets = [along_axis(ids, scores.shape, (batch + "mn").index(x)) for x, ids in found.items()
                     if x in batch + "mn"]
    if isinstance(mask, Identified):
        scores = unite_elementwise(state, node, [scores, mask])
    found = _meet_labels(state, node, (_Side(scores, batch + "mn"), _Side(value, batch + "nv")), batch + "mv")
    result: Identified = opaque_result(node)
    result.facets = [along_axis(ids, result.shape, (batch + "mv").index(x)) for x, ids in found.items()
                     if x in batch + "mv"]
    return result


def _repeat_heads(value: Identified, heads: int) -> Identified:
    times = heads // value.shape[-3]
    shape = (*value.shape[:-3], heads, *value.shape[-2:])
    return Identified(shape, [f.repeat_interleave(times, dim=-3) for f in value.facets])


def embedding(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rows of a table: a producer of its columns."""
    columns = _vector(state, args[0], 1)
    state.contractions.append(Contraction(node, "embedding", node.args[1], _name(state, node, 0), None, None, columns))
    result: Identified = opaque_result(node)
    return _with_channels(node, columns, len(result.shape) - 1)
