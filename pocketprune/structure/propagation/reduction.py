"""Operators that sum, pool or normalise along axes: identities must not vary along those."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pocketprune.graph.nodes import arguments, schema_of
from pocketprune.structure.propagation.normalisation import across_statistics
from pocketprune.structure.propagation.rules import (
    ConstantSum,
    Contraction,
    State,
    argument,
    flat_axes,
    opaque_result,
)
from pocketprune.structure.propagation.values import Identified, apart_from, compress, core, tie, varying

STATISTICS = frozenset(["mean", "var", "std", "var_mean", "std_mean"])
PLACES = frozenset(["argmax", "argmin"])
SUMS = frozenset(["sum", "linalg_vector_norm", "norm", "nansum"])
REDUCTION = (
    STATISTICS
    | SUMS
    | frozenset(
        [
            "amax",
            "amin",
            "max",
            "min",
            "prod",
            "logsumexp",
            "any",
            "all",
            "argmax",
            "argmin",
            "count_nonzero",
            "median",
            "aminmax",
        ]
    )
)
SPATIAL = frozenset(
    (
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "upsample_linear1d",
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "grid_sampler",
        "grid_sampler_2d",
        "grid_sampler_3d",
    )
)
ALONG_ONE_AXIS = frozenset(
    (
        "softmax",
        "log_softmax",
        "_softmax",
        "_log_softmax",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "logcumsumexp",
        "sort",
        "argsort",
        "topk",
        "kthvalue",
    )
)


def reduction(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Over axes without channels they pass; pieces that are reduced together go together."""
    source: Identified = args[0]
    names = {a.name for a in schema_of(node).arguments}
    dims = argument(node, args, kwargs, "dim") if "dim" in names else None
    axes = flat_axes(dims, source.dim)
    keep = bool(argument(node, args, kwargs, "keepdim")) if "keepdim" in names else False
    reduced = [_reduced(state, node, facet, axes, keep, source.constant) for facet in source.facets]
    facets = [facet for facet in reduced if facet is not None]
    result = opaque_result(node)
    for value in result if isinstance(result, tuple) else (result,):
        if isinstance(value, Identified) and len(value.shape) == (source.dim if keep else source.dim - len(axes)):
            value.facets = facets
    return result


def _reduced(
    state: State, node: fx.Node, facet: Tensor, axes: tuple[int, ...], keep: bool, constant: bool
) -> Tensor | None:
    """One facet after the reduction; None where it has no axis left."""
    name = schema_of(node).name.split("::")[1]
    statistic = name in STATISTICS or (constant and name not in PLACES)
    mixed = set(axes) & set(varying(facet))
    apart = set(varying(facet)) - mixed
    if mixed and name in SUMS and (not apart or state.attention == "widths") and _counts_zeros_as_nothing(node):
        facet = tie(state.identities, facet, apart)  # a removed channel adds nothing: the sum reads it like a layer
        state.contractions.append(Contraction(node, "product", arguments(node)[0], None, None, core(facet), None))
        if constant:
            state.sums.append(ConstantSum(node, core(facet), (arguments(node)[0],)))
        return None
    if mixed and not apart:
        if statistic:
            across_statistics(state, node, facet, axes)
        else:
            state.refuse(node, facet, "mixed")
        return None
    facet = tie(state.identities, facet, mixed)  # e.g. a maximum over pieces of one map
    for axis in sorted(axes, reverse=True):
        facet = facet.narrow(axis, 0, 1) if keep else facet.select(axis, 0)
    return compress(facet)


def _counts_zeros_as_nothing(node: fx.Node) -> bool:
    """Whether zeros leave a sum or norm as it is (a norm of negative order does not)."""
    order = arguments(node)[1] if "norm" in schema_of(node).name and len(node.args) > 1 else 2
    return order is None or (isinstance(order, (int, float)) and order > 0)


def spatial(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pooling and resizing treat every map alike; channels stay where they are."""
    source: Identified = args[0]
    name = schema_of(node).name
    rank = next((int(c) for c in name if c.isdigit()), source.dim - 2)
    result = opaque_result(node)
    shape = (result[0] if isinstance(result, tuple) else result).shape
    facets = []
    for facet in source.facets:
        left = apart_from(state.identities, facet, range(source.dim - rank, source.dim))
        if left is not None:
            index = tuple(slice(0, 1) if d >= source.dim - rank else slice(None) for d in range(source.dim))
            facets.append(left[index].expand(shape))
        else:
            state.refuse(node, facet, "mixed")
    for other in args[1:]:
        for facet in other.facets if isinstance(other, Identified) else []:
            state.refuse(node, facet, "mixed")
    for value in result if isinstance(result, tuple) else (result,):
        value.facets = facets
    return result


def along_one_axis(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Everything along the axis mixes, the other axes pass."""
    source: Identified = args[0]
    names = {a.name for a in schema_of(node).arguments}
    axis = (argument(node, args, kwargs, "dim") if "dim" in names else -1) % max(source.dim, 1)
    passing = []
    shares = source.constant and schema_of(node).name.endswith("softmax")
    result = opaque_result(node)
    for facet in source.facets:
        left = apart_from(state.identities, facet, (axis,))
        if left is not None:
            passing.append(left)
        elif shares and axis in varying(facet):  # weights that add up to one: a statistic of them
            state.mix(node, facet)
            result.facets.append(facet)
        else:
            state.refuse(node, facet, "mixed")
    for value in result if isinstance(result, tuple) else (result,):
        if len(value.shape) == source.dim:
            index = tuple(slice(0, 1) if d == axis else slice(None) for d in range(source.dim))
            value.facets += [f[index].expand(value.shape) for f in passing]
    return result
