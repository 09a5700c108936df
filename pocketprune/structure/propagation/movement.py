"""Operators that only move elements: the very same operator is run on the identities."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from .rules import State, argument, field_like, identified_in
from .values import Identified, compress, varying

MOVEMENT = frozenset("""
    view reshape _unsafe_view _reshape_alias view_as reshape_as flatten unflatten permute transpose t numpy_T mT
    movedim moveaxis swapaxes swapdims squeeze unsqueeze expand expand_as broadcast_to slice select narrow
    split split_with_sizes split_copy chunk unsafe_chunk unsafe_split unsafe_split_with_sizes tensor_split hsplit
    vsplit dsplit unbind flip fliplr flipud roll rot90 index_select index pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle unfold im2col repeat repeat_interleave tile clone contiguous detach
    alias to _to_copy type_as lift_fresh_copy lift_fresh diagonal take_along_dim squeeze_copy
    adaptive_identity real reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d _to_dtype float double half bfloat16
""".split())
"""Names of aten operators whose output elements are input elements."""


def apply_movement(node: fx.Node, moved: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the node's operator with `moved` in place of its first tensor; other tensors (indices) are numbers."""
    seen = False
    def put(value: Any) -> Any:
        nonlocal seen
        if isinstance(value, Identified):
            if not seen:
                seen = True
                return moved
            return value.data if value.data is not None else field_like(value.shape)
        if isinstance(value, (tuple, list)):
            return type(value)(put(v) for v in value)
        return value
    new_args = tuple(put(a) for a in args)
    new_kwargs = {k: put(v) for k, v in kwargs.items() if k not in ("dtype", "device", "layout", "memory_format")}
    return _call(node, new_args, new_kwargs)


_CASTS = {"to", "_to_copy", "type_as", "contiguous", "clone", "float", "double", "half", "bfloat16", "_to_dtype"}


def _call(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = node.target._schema.name.split("::")[1]
    if name in _CASTS:
        return args[0]
    try:
        return node.target(*args, **kwargs)
    except (RuntimeError, NotImplementedError):  # some kernels lack an integer version; float64 holds ids exactly
        floats = torch.utils._pytree.tree_map(
            lambda t: t.double() if isinstance(t, Tensor) and t is args[0] else t, (args, kwargs))
        return torch.utils._pytree.tree_map(
            lambda t: t.long() if isinstance(t, Tensor) else t, node.target(*floats[0], **floats[1]))


def move(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rule of every movement operator with one tensor (others may be known indices)."""
    values = identified_in((args, kwargs))
    shape_only = node.target._schema.name.endswith("_as")
    if not shape_only and any(v.data is None for v in values[1:]):
        return state.opaque(node, values, "indices that depend on the data")
    source = values[0]
    results = [apply_movement(node, facet, args, kwargs) for facet in source.facets]
    shapes = apply_movement(node, field_like(source.shape), args, kwargs)
    data = apply_movement(node, source.data, args, kwargs) if source.data is not None else None
    if isinstance(shapes, Tensor):
        return Identified(tuple(shapes.shape), _live(results), data)
    return tuple(Identified(tuple(shape.shape), _live([r[i] for r in results]), data[i] if data is not None else None)
                 for i, shape in enumerate(shapes))


def _live(facets: list[Tensor]) -> list[Tensor]:
    return [compress(facet) for facet in facets]


def pad(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Constant padding: new positions along the channels are free; along other axes they belong to their channel."""
    source: Identified = args[0]
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    if isinstance(mode, str) and mode != "constant":
        return move(state, node, args, kwargs)
    widths = {source.dim - 1 - i // 2: (args[1][i], args[1][i + 1]) for i in range(0, len(args[1]), 2)}
    shape = tuple(size + sum(widths.get(axis, (0, 0))) for axis, size in enumerate(source.shape))
    facets = []
    for facet in source.facets:
        for axis, (before, after) in widths.items():
            facet = _pad_axis(state, facet, axis, before, after)
        facets.append(compress(facet))
    return Identified(shape, facets)


def _pad_axis(state: State, facet: Tensor, axis: int, before: int, after: int) -> Tensor:
    if axis not in varying(facet):
        shape = list(facet.shape)
        shape[axis] += before + after
        return facet.narrow(axis, 0, 1).expand(shape)
    if before < 0 or after < 0:
        facet = facet.narrow(axis, max(-before, 0), facet.shape[axis] + min(before, 0) + min(after, 0))
    parts = [_free(state, facet, axis, max(before, 0)), facet, _free(state, facet, axis, max(after, 0))]
    return torch.cat([p for p in parts if p is not None], dim=axis)


def _free(state: State, facet: Tensor, axis: int, count: int) -> Tensor | None:
    """Fresh identities for `count` generated positions along `axis`."""
    if count == 0:
        return None
    shape = [count if d == axis else (facet.shape[d] if d in varying(facet) else 1) for d in range(facet.dim())]
    full = [count if d == axis else facet.shape[d] for d in range(facet.dim())]
    return state.identities.fresh(int(torch.Size(shape).numel())).view(shape).expand(full)


def concatenate(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """cat and stack: along the joined axis identities follow one another; elsewhere they must agree."""
    values: list[Identified] = [v for v in args[0] if v.shape != (0,)]
    name = node.target._schema.name.split("::")[1]
    dim = argument(node, args, kwargs, "dim") if name in ("cat", "concat", "concatenate", "stack") else None
    if dim is None:
        return state.opaque(node, values, "this way of joining is not followed")
    if name == "stack":
        dim = dim % (values[0].dim + 1)
        values = [_unsqueezed(v, dim) for v in values]
    dim = dim % values[0].dim
    shape = list(values[0].shape)
    shape[dim] = sum(v.shape[dim] for v in values)
    return Identified(tuple(shape), [compress(f) for f in _joined_facets(state, node, values, dim)])


def _unsqueezed(value: Identified, dim: int) -> Identified:
    shape = (*value.shape[:dim], 1, *value.shape[dim:])
    return Identified(shape, [facet.unsqueeze(dim) for facet in value.facets])


def _joined_facets(state: State, node: fx.Node, values: list[Identified], dim: int) -> list[Tensor]:
    """One facet per direction that any of the values varies along."""
    directions: list[set[int]] = []
    for facet in (f for v in values for f in v.facets):
        axes = set(varying(facet)) or {dim}
        touching = [d for d in directions if d & axes]
        directions = [d for d in directions if not d & axes] + [axes.union(*touching)]
    return [_join_direction(state, node, values, dim, axes) for axes in directions]


def _join_direction(state: State, node: fx.Node, values: list[Identified], dim: int, axes: set[int]) -> Tensor:
    parts = []
    for value in values:
        mine = [f for f in value.facets if (set(varying(f)) or {dim}) & axes]
        for other in mine[1:]:
            state.identities.unite(mine[0], other)
        if mine:
            parts.append(mine[0])
        else:
            reason = f"{node.name}: joined with a part that cannot be thinned"
            parts.append(state.identities.pinned_id(reason).view([1] * value.dim).expand(value.shape))
    for other in axes - {dim}:  # channels of all parts must go together where they are not the joined axis
        _agree(state, parts, dim, other)
    return torch.cat(parts, dim=dim)


def _agree(state: State, parts: list[Tensor], dim: int, axis: int) -> None:
    rows = [p.narrow(dim, 0, 1) for p in parts if axis in varying(p) or varying(p) == ()]
    for part, row in zip(parts, rows, strict=False):
        state.identities.unite(part, row.expand(part.shape))
    for row in rows[1:]:
        state.identities.unite(rows[0], row)
