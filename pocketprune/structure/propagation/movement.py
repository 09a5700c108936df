"""Operators that only move elements: the very same operator is run on the identities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.graph.nodes import operator_of, schema_of
from pocketprune.structure.propagation.rules import State, argument, field_like, identified_in, opaque_result
from pocketprune.structure.propagation.values import Identified, along_axis, compress, core, varying

MOVEMENT = frozenset(
    (
        "view",
        "reshape",
        "_unsafe_view",
        "_reshape_alias",
        "view_as",
        "reshape_as",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "t",
        "numpy_T",
        "mT",
        "mH",
        "adjoint",
        "ravel",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "broadcast_to",
        "slice",
        "select",
        "narrow",
        "split",
        "split_with_sizes",
        "split_copy",
        "chunk",
        "unsafe_chunk",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "tensor_split",
        "hsplit",
        "vsplit",
        "dsplit",
        "unbind",
        "flip",
        "fliplr",
        "flipud",
        "roll",
        "rot90",
        "index_select",
        "index",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "unfold",
        "im2col",
        "repeat",
        "repeat_interleave",
        "tile",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "to",
        "_to_copy",
        "type_as",
        "lift_fresh_copy",
        "lift_fresh",
        "diagonal",
        "take_along_dim",
        "gather",
        "squeeze_copy",
        "detach_copy",
        "real",
        "reflection_pad1d",
        "reflection_pad2d",
        "reflection_pad3d",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d",
        "float",
        "double",
        "half",
        "bfloat16",
    )
)
"""Names of aten operators whose output elements are input elements (or padded zeros)."""

CASTS = frozenset(
    (
        "to",
        "_to_copy",
        "type_as",
        "contiguous",
        "clone",
        "float",
        "double",
        "half",
        "bfloat16",
        "detach",
        "alias",
        "lift_fresh",
        "lift_fresh_copy",
        "detach_copy",
    )
)
"""Those that leave every element in its place."""

EXPANSIONS = frozenset(("expand", "expand_as", "broadcast_to"))

_RESHAPING = {
    "view": torch.ops.aten.reshape.default,
    "_unsafe_view": torch.ops.aten.reshape.default,
    "_reshape_alias": torch.ops.aten.reshape.default,
    "view_as": torch.ops.aten.reshape_as.default,
}
"""Stand-ins for the operators that insist on a memory layout which identities need not have."""


def apply_movement(node: fx.Node, moved: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the node's operator with `moved` in place of its first tensor; other tensors (indices) are numbers."""

    def put(value: Any) -> Any:
        if isinstance(value, Identified):
            return value.data if value.data is not None else field_like(value.shape)
        return value

    rest = pytree.tree_map(put, (tuple(args[1:]), kwargs), is_leaf=lambda v: isinstance(v, Identified))
    return call_movement(node, moved, *rest)


def call_movement(node: fx.Node, moved: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The node's operator on integers: casts skipped, memory layouts ignored."""
    name = schema_of(node).name.split("::")[1]
    if name in CASTS:
        return moved
    options = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout", "memory_format")}
    if name == "_reshape_alias":
        rest = rest[:1]
    target = _RESHAPING.get(name, operator_of(node))
    try:
        return target(moved, *rest, **options)
    except (RuntimeError, NotImplementedError):  # some kernels lack an integer version; float64 holds ids exactly
        made = target(moved.double(), *rest, **options)
        return pytree.tree_map(lambda t: t.long() if isinstance(t, Tensor) else t, made)


def move(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same operator is run on the identities; index tensors must be known when the network is traced."""
    source, *indices = identified_in((args, kwargs))
    if schema_of(node).name.endswith("_as"):
        indices = []
    for value in indices:
        for facet in value.facets:
            state.refuse(node, facet, "index")
    if any(v.data is None for v in indices):
        return _unknown_index(state, node, source, args, kwargs)
    results = [apply_movement(node, facet, args, kwargs) for facet in source.facets]
    made = opaque_result(node, origin=source.origin)
    if schema_of(node).name.split("::")[1] in EXPANSIONS:
        results += _new_axes(state, source.shape, made.shape)
    if isinstance(made, tuple):
        for position, part in enumerate(made):
            part.facets = _live(state, node, [r[position] for r in results], source.constant)
    else:
        made.facets = _live(state, node, results, source.constant)
    return made


def _new_axes(state: State, before: tuple[int, ...], after: tuple[int, ...]) -> list[Tensor]:
    """Facets of axes that are made by repeating one element: they may have any width."""
    before = (1,) * (len(after) - len(before)) + before
    facets = []
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == 1 and new > 1:
            ids = state.identities.fresh(new)
            state.repeated.update(ids.tolist())
            facets.append(along_axis(ids, after, axis))
    return facets


def _live(state: State, node: fx.Node, facets: list[Tensor], constant: bool) -> list[Tensor]:
    """Facets after a move; where two come to share an axis, all that varies along it stays.

    An axis made by repeating yields to the channels that it is merged with. Of a weight laid flat the first axis keeps
    its channels: a kernel's taps yield to the channels before them.
    """
    facets = [compress(facet) for facet in facets]
    clashing = {
        i
        for i, facet in enumerate(facets)
        for j, other in enumerate(facets)
        if i != j and set(varying(facet)) & set(varying(other))
    }
    given = {i for i in clashing if int(core(facets[i]).max()) in state.repeated}
    if given:
        for i in given:
            state.refuse(node, facets[i], "overlap")
        return _live(state, node, [f for i, f in enumerate(facets) if i not in given], constant)
    if constant and clashing:
        clashing -= _first_along_their_axes(facets)
    for i in clashing:
        state.refuse(node, facets[i], "overlap")
    return [state.identities.told_apart(facet) for i, facet in enumerate(facets) if i not in clashing]


def _first_along_their_axes(facets: list[Tensor]) -> set[int]:
    """The facets, by place, none of whose axes an earlier one of them varies along."""
    first: set[int] = set()
    taken: set[int] = set()
    for i, facet in enumerate(facets):
        if not taken & set(varying(facet)):
            first.add(i)
            taken |= set(varying(facet))
    return first


def _unknown_index(
    state: State, node: fx.Node, source: Identified, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Unknown indices along one axis leave the channels of the other axes where they are."""
    result = opaque_result(node)
    name = schema_of(node).name.split("::")[1]
    dim = argument(node, args, kwargs, "dim") % source.dim if name == "index_select" else None
    for facet in source.facets:
        if dim is not None and varying(facet) and dim not in varying(facet):
            result.facets.append(facet.narrow(dim, 0, 1).expand(result.shape))
        else:
            state.refuse(node, facet, "index")
    return result


def positional(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `tril` and `triu` keep depends on the place along the last two axes, so those stay as they are."""
    source, result = args[0], opaque_result(node)
    for facet in source.facets:
        if set(varying(facet)) & {source.dim - 1, source.dim - 2}:
            state.refuse(node, facet, "mixed")
        else:
            result.facets.append(facet)
    return result
