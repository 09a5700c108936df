"""Operators that work element by element (after broadcasting), and what normalises per channel."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..tracing import describe
from .rules import State, argument, identified_in
from .values import Identified, compress, varying

ELEMENTWISE = frozenset("""
    relu relu6 hardtanh hardsigmoid hardswish sigmoid tanh silu gelu elu selu celu leaky_relu mish softplus softsign
    logsigmoid log_sigmoid rrelu threshold hardshrink softshrink tanhshrink clamp clamp_min clamp_max clip
    add sub rsub subtract mul multiply div divide true_divide floor_divide remainder fmod pow exp exp2 expm1 log log2
    log10 log1p sqrt rsqrt square abs neg negative sign sin cos tan asin acos atan sinh cosh erf erfc reciprocal
    floor ceil round trunc frac maximum minimum max.other min.other fmax fmin where masked_fill lerp addcmul addcdiv
    dropout alpha_dropout feature_dropout native_dropout logical_and logical_or logical_not bitwise_and bitwise_or
    bitwise_not eq ne lt le gt ge isnan isinf nan_to_num copysign atan2 hypot xlogy zeros_like ones_like full_like
    empty_like rand_like randn_like bernoulli heaviside logit copy fill positive
""".split())


def elementwise(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rule of all of them: identities that meet in an element are one."""
    result = unite_elementwise(state, node, identified_in((args, kwargs)))
    if isinstance(node.meta.get("val"), (tuple, list)):  # native_dropout: output, mask
        return (result, *[None] * (len(node.meta["val"]) - 1))
    return result


def unite_elementwise(state: State, node: fx.Node, values: list[Identified]) -> Identified:
    """Broadcast the values against one another and unite what meets; pin what meets something that cannot go."""
    shape = tuple(torch.broadcast_shapes(*[v.shape for v in values]))
    own = [(1,) * (len(shape) - v.dim) + v.shape for v in values]
    facets = [[_lift(f, v.shape, shape) for f in v.facets] for v in values]
    pool: list[Tensor] = []
    for i, mine in enumerate(facets):
        for facet in mine:
            if _fits(facet, i, own, facets, shape):
                _merge(state, pool, facet)
            else:
                state.identities.pin(facet, f"{describe(node)}: combined with a value that cannot be thinned alike")
    return Identified(shape, pool)


def _lift(facet: Tensor, own: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """The facet at the broadcast shape."""
    return facet.view((1,) * (len(shape) - len(own)) + own).expand(shape) if facet.shape != shape else facet


def _fits(facet: Tensor, index: int, own: list[tuple[int, ...]], facets: list[list[Tensor]],
          shape: tuple[int, ...]) -> bool:
    """Whether every other operand either broadcasts along the facet's axes or has identities there."""
    axes = set(varying(facet))
    if not axes:
        return max(own[index], default=1) == 1 and max(shape, default=1) == 1
    for other, size in enumerate(own):
        if other != index and any(size[a] > 1 for a in axes):
            if not any(axes & set(varying(g)) for g in facets[other]):
                return False
    return True


def _merge(state: State, pool: list[Tensor], facet: Tensor) -> None:
    """Add a facet to the result, one with those that vary along the same axes."""
    axes = set(varying(facet))
    meeting = [g for g in pool if axes & set(varying(g))]
    for other in meeting:
        state.identities.unite(facet, other)
    kept = min([facet, *meeting], key=lambda f: len(varying(f)))
    pool[:] = [g for g in pool if not any(g is m for m in meeting)] + [kept]


def per_channel(value: Identified | None, rank: int, axis: int) -> Identified | None:
    """A vector of parameters laid along one axis of a value of some rank."""
    if value is None:
        return None
    shape = tuple(value.shape[0] if d == axis else 1 for d in range(rank))
    return Identified(shape, [facet.view(shape) for facet in value.facets])


def batch_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Batch and instance norm, PReLU: one parameter a channel, channels do not mix."""
    source: Identified = args[0]
    extra = [per_channel(v, source.dim, 1) for v in args[1:5] if isinstance(v, Identified) and v.dim == 1]
    result = unite_elementwise(state, node, [source, *[v for v in extra if v is not None]])
    if isinstance(node.meta.get("val"), (tuple, list)):
        return (result, *[None] * (len(node.meta["val"]) - 1))
    return result


def layer_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Statistics over the last axes: channels there mix, so they stay, unless inexact removal is asked for."""
    source: Identified = args[0]
    shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    normalized = set(range(source.dim - len(shape), source.dim))
    values = [source, *[v for v in identified_in(args[2:4])]]
    _guard_statistics(state, node, values, normalized)
    result = unite_elementwise(state, node, values)
    if isinstance(node.meta.get("val"), (tuple, list)):
        return (result, *[None] * (len(node.meta["val"]) - 1))
    return result


def _guard_statistics(state: State, node: fx.Node, values: list[Identified], normalized: set[int]) -> None:
    for facet in values[0].facets:
        if normalized & set(varying(facet)):
            if state.allow_inexact:
                state.identities.mark_inexact(facet)
            else:
                state.identities.pin(facet, f"{describe(node)}: its statistics mix these channels "
                                            "(allow_inexact=True removes them all the same)")


def group_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Whole normalisation groups can go exactly; parts of them only when inexact removal is asked for."""
    source: Identified = args[0]
    native = node.target._schema.name.endswith("native_group_norm")
    groups = argument(node, args, kwargs, "group" if native else "num_groups")
    weights = [v for v in (argument(node, args, kwargs, "weight"), argument(node, args, kwargs, "bias"))
               if isinstance(v, Identified)]
    result = unite_elementwise(state, node, [source, *[per_channel(w, source.dim, 1) for w in weights]])
    channels = source.shape[1]
    for facet in result.facets:
        if 1 in varying(facet) and groups < channels:
            grouped = facet.reshape(facet.shape[0], groups, channels // groups, *facet.shape[2:])
            _tie_groups(state, node, compress(grouped), groups)
    return (result, *[None] * (len(node.meta["val"]) - 1)) if native else result


def _tie_groups(state: State, node: fx.Node, grouped: Tensor, groups: int) -> None:
    if state.allow_inexact:
        state.identities.mark_inexact(grouped)
        state.identities.unite(grouped, grouped.narrow(1, 0, 1).expand(grouped.shape))
    elif groups == 1:
        state.identities.pin(grouped, f"{describe(node)}: its statistics mix these channels "
                                      "(allow_inexact=True removes them all the same)")
    else:
        state.identities.unite(grouped, grouped.narrow(2, 0, 1).expand(grouped.shape))


def gated_halves(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """glu: the first half times the sigmoid of the second."""
    source: Identified = args[0]
    dim = argument(node, args, kwargs, "dim") % source.dim
    half = source.shape[dim] // 2
    shape = tuple(half if d == dim else s for d, s in enumerate(source.shape))
    halves = [Identified(shape, [compress(f.narrow(dim, k * half, half)) for f in source.facets]) for k in (0, 1)]
    return unite_elementwise(state, node, halves)
