"""Operators that put tensors side by side: concatenation, stacking, padding, writing into a slice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import schema_of
from pocketprune.structure.propagation.movement import move
from pocketprune.structure.propagation.rules import State, argument, identified_in, opaque_result, origin_of
from pocketprune.structure.propagation.values import Identified, compress, varying


def pad(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """New positions along the channels are free to go; along other axes they belong to their channel."""
    source: Identified = args[0]
    names = {a.name for a in schema_of(node).arguments}
    if "mode" in names and argument(node, args, kwargs, "mode") != "constant":
        return move(state, node, args, kwargs)
    widths = {source.dim - 1 - i // 2: (args[1][i], args[1][i + 1]) for i in range(0, len(args[1]), 2)}
    result = opaque_result(node, origin=source.origin)
    for facet in source.facets:
        for axis, (before, after) in widths.items():
            facet = _pad_axis(state, facet, axis, before, after)
        result.facets.append(compress(facet))
    return result


def _pad_axis(state: State, facet: Tensor, axis: int, before: int, after: int) -> Tensor:
    if axis not in varying(facet) and varying(facet):
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
    """Along the joined axis identities follow one another; along the others they must agree."""
    values: list[Identified] = [v for v in args[0] if v.shape != (0,)]
    dim = argument(node, args, kwargs, "dim")
    if schema_of(node).name.endswith("::stack"):
        dim = dim % (values[0].dim + 1)
        values = [_unsqueezed(v, dim) for v in values]
    return join(state, node, values, dim % values[0].dim)


def write_slice(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """slice_scatter: what lies before, what is written, what lies after, side by side."""
    source, written = args[0], args[1]
    dim = argument(node, args, kwargs, "dim") % source.dim
    size = source.shape[dim]
    positions = range(size)[
        argument(node, args, kwargs, "start") : argument(node, args, kwargs, "end") : argument(
            node, args, kwargs, "step"
        )
    ]
    if positions.step != 1:
        return state.opaque(node, identified_in(args), "sequence", other="writing into a strided slice")
    if not positions:
        return Identified(source.shape, list(source.facets))
    before, after = _part(source, dim, 0, positions.start), _part(source, dim, positions.stop, size)
    return join(state, node, [v for v in (before, written, after) if v.shape[dim]], dim)


def write_index(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """select_scatter: one index along an axis is replaced."""
    source, written = args[0], args[1]
    dim = argument(node, args, kwargs, "dim") % source.dim
    at = argument(node, args, kwargs, "index") % source.shape[dim]
    parts = [_part(source, dim, 0, at), _unsqueezed(written, dim), _part(source, dim, at + 1, source.shape[dim])]
    return join(state, node, [v for v in parts if v.shape[dim]], dim)


def _part(value: Identified, dim: int, start: int, end: int) -> Identified:
    shape = (*value.shape[:dim], end - start, *value.shape[dim + 1 :])
    return Identified(shape, [f.narrow(dim, start, end - start) for f in value.facets], origin=value.origin)


def _unsqueezed(value: Identified, dim: int) -> Identified:
    shape = (*value.shape[:dim], 1, *value.shape[dim:])
    return Identified(shape, [facet.unsqueeze(dim) for facet in value.facets], origin=value.origin)


def join(state: State, node: fx.Node, values: list[Identified], dim: int) -> Identified:
    """The values one after another along `dim`: one facet per direction that any of them varies along."""
    directions: list[set[int]] = []
    for facet in (f for v in values for f in v.facets):
        axes = set(varying(facet)) or {dim}
        touching = [d for d in directions if d & axes]
        directions = [d for d in directions if not d & axes] + [axes.union(*touching)]
    shape = (*values[0].shape[:dim], sum(v.shape[dim] for v in values), *values[0].shape[dim + 1 :])
    facets = [_join_direction(state, node, values, dim, axes) for axes in directions]
    joined = [state.identities.told_apart(compress(f)) for f in facets if f is not None]
    return Identified(shape, joined, origin=values[0].origin)


def _join_direction(state: State, node: fx.Node, values: list[Identified], dim: int, axes: set[int]) -> Tensor | None:
    parts, fixed = [], None
    for value in values:
        mine = [f for f in value.facets if (set(varying(f)) or {dim}) & axes]
        for other in mine[1:]:
            state.identities.unite(mine[0], other)
        if not mine:
            fixed = value
            mine = [
                state.identities.pinned_id(state.reason(node, "joined", other=origin_of(value)))
                .view([1] * value.dim)
                .expand(value.shape)
            ]
        parts.append(mine[0])
    if dim not in axes and fixed is not None:  # channels across the joined axis stay in all parts, or go from all
        for part in parts:
            state.refuse(node, part, "joined", other=origin_of(fixed))
        return None
    if dim not in axes:
        row = parts[0].narrow(dim, 0, 1)
        for part in parts[1:]:
            state.identities.unite(row, part.narrow(dim, 0, 1))
        parts = [row.expand(part.shape) for part in parts]
    return torch.cat(parts, dim=dim)
