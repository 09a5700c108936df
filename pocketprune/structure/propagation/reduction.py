"""Operators that sum, pool or normalise along axes: identities must not vary along those."""
from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..tracing import describe
from .rules import State, argument, flat_axes, opaque_result
from .values import Identified, compress, only_along, varying

REDUCTION = frozenset("""
    mean sum amax amin max min prod std var var_mean std_mean norm linalg_vector_norm logsumexp any all argmax argmin
    count_nonzero nansum median
""".split())
SPATIAL = frozenset("""
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d upsample_linear1d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa lp_pool2d
""".split())
ALONG_ONE_AXIS = frozenset("softmax log_softmax _softmax _log_softmax cumsum cumprod sort argsort topk logcumsumexp".split())


def reduction(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """mean, sum, max, ... over some axes."""
    source: Identified = args[0]
    names = {a.name for a in node.target._schema.arguments}
    dims = argument(node, args, kwargs, "dim") if "dim" in names else None
    axes = flat_axes(dims, source.dim)
    keep = bool(argument(node, args, kwargs, "keepdim")) if "keepdim" in names else False
    facets = [f for facet in source.facets if (f := _reduced(state, node, facet, axes, keep)) is not None]
    result = opaque_result(node)
    for value in result if isinstance(result, tuple) else (result,):
        if isinstance(value, Identified) and len(value.shape) == (source.dim if keep else source.dim - len(axes)):
            value.facets = facets
    return result


def _reduced(state: State, node: fx.Node, facet: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor | None:
    mixed, rest = set(axes) & set(varying(facet)), set(varying(facet)) - set(axes)
    if mixed and not rest:
        state.identities.pin(facet, f"{describe(node)}: it mixes these channels")
        return None
    if mixed:  # e.g. a maximum over pieces of one map: the pieces go together
        first = facet
        for axis in mixed:
            first = first.narrow(axis, 0, 1)
        state.identities.unite(facet, first.expand(facet.shape))
        facet = first.expand(facet.shape)
    for axis in sorted(axes, reverse=True):
        facet = facet.narrow(axis, 0, 1) if keep else facet.select(axis, 0)
    return compress(facet)


def spatial(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pooling and resizing: every map is treated alike, channels stay where they are."""
    source: Identified = args[0]
    result = opaque_result(node)
    first = result[0] if isinstance(result, tuple) else result
    channel = 1 if len(first.shape) == source.dim and source.dim > 2 else 0
    for facet in source.facets:
        axis = channel if channel in varying(facet) else (varying(facet) or (channel,))[0]
        if axis > channel:
            state.identities.pin(facet, f"{describe(node)}: it mixes these channels")
        elif varying(facet):
            ids = only_along(state.identities, facet, axis)
            view = [-1 if d == axis else 1 for d in range(len(first.shape))]
            first.facets.append(ids.view(view).expand(first.shape))
    return result


def along_one_axis(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """softmax, cumulative sums, sorting: everything along the axis mixes, the other axes pass."""
    source: Identified = args[0]
    names = {a.name for a in node.target._schema.arguments}
    axis = (argument(node, args, kwargs, "dim") if "dim" in names else -1) % max(source.dim, 1)
    passing = []
    for facet in source.facets:
        if axis in varying(facet):
            state.identities.pin(facet, f"{describe(node)}: it mixes these channels")
        else:
            passing.append(facet)
    result = opaque_result(node)
    for value in result if isinstance(result, tuple) else (result,):
        if value.shape == source.shape:
            value.facets = passing
    return result


