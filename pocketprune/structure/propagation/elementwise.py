"""Operators that work element by element, after broadcasting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from pocketprune.structure.propagation.rules import State, argument, identified_in, opaque_result, origin_of
from pocketprune.structure.propagation.values import Identified, apart_from, compress, tie, varying

ELEMENTWISE = frozenset(
    (
        "relu",
        "relu6",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "sigmoid",
        "tanh",
        "silu",
        "gelu",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "mish",
        "softplus",
        "softsign",
        "logsigmoid",
        "log_sigmoid",
        "rrelu",
        "threshold",
        "hardshrink",
        "softshrink",
        "tanhshrink",
        "clamp",
        "clamp_min",
        "clamp_max",
        "clip",
        "add",
        "sub",
        "rsub",
        "subtract",
        "mul",
        "multiply",
        "div",
        "divide",
        "true_divide",
        "floor_divide",
        "remainder",
        "fmod",
        "pow",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "square",
        "abs",
        "neg",
        "negative",
        "sign",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "erf",
        "erfc",
        "reciprocal",
        "floor",
        "ceil",
        "round",
        "trunc",
        "frac",
        "maximum",
        "minimum",
        "max.other",
        "min.other",
        "fmax",
        "fmin",
        "where",
        "masked_fill",
        "lerp",
        "addcmul",
        "addcdiv",
        "dropout",
        "alpha_dropout",
        "feature_dropout",
        "native_dropout",
        "logical_and",
        "logical_or",
        "logical_not",
        "bitwise_and",
        "bitwise_or",
        "bitwise_not",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "isnan",
        "isinf",
        "nan_to_num",
        "copysign",
        "atan2",
        "hypot",
        "xlogy",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "bernoulli",
        "heaviside",
        "logit",
        "copy",
        "fill",
        "positive",
        "logaddexp",
        "sinc",
        "__and__",
        "__or__",
        "__xor__",
        "sgn",
        "deg2rad",
        "rad2deg",
        "erfinv",
        "lgamma",
        "float_power",
        "special_expit",
        "special_erf",
    )
)


def elementwise(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Identities that meet in an element are one."""
    return with_extras(node, unite_elementwise(state, node, identified_in((args, kwargs))))


def with_extras(node: fx.Node, result: Identified) -> Any:
    """The result, and its operator's further results (masks, saved statistics) without identities."""
    made = opaque_result(node)
    return (result, *made[1:]) if isinstance(made, tuple) else result


def unite_elementwise(state: State, node: fx.Node, values: list[Identified]) -> Identified:
    """Broadcast the values against one another and unite what meets; what meets a value that cannot go stays."""
    shape = _broadcast([v.shape for v in values])
    own = [(1,) * (len(shape) - v.dim) + v.shape for v in values]
    facets = [[_lift(f, v.shape, shape) for f in v.facets] for v in values]
    pool: list[_Met] = []
    for index, mine in enumerate(facets):
        for facet in mine:
            bare = {
                a: o
                for o in range(len(values))
                if o != index
                for a in varying(facet)
                if own[o][a] > 1 and not any(a in varying(g) for g in facets[o])
            }
            left = apart_from(state.identities, facet, bare)
            if left is not None:
                _merge(state, node, pool, _Met(left, values[index].constant))
            else:
                other = values[next(iter(bare.values()))] if bare else values[index]
                state.refuse(node, facet, "combined", other=origin_of(other))
    return Identified(shape, [met.facet for met in pool], origin=next((v.origin for v in values if v.origin), ""))


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def _lift(facet: Tensor, own: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """The facet at the broadcast shape."""
    return facet.view((1,) * (len(shape) - len(own)) + own).expand(shape) if facet.shape != shape else facet


@dataclass(frozen=True)
class _Met:
    """A facet of the result so far, and whether it comes from constants alone."""

    facet: Tensor
    constant: bool

    @property
    def axes(self) -> set[int]:
        return set(varying(self.facet))


def _merge(state: State, node: fx.Node, pool: list[_Met], new: _Met) -> None:
    """Add a facet to the result, made one with those that vary along the same axes."""
    meeting = [met for met in pool if met.axes & new.axes]
    pool[:] = [met for met in pool if not met.axes & new.axes]
    for met in meeting:
        new = _meet(state, node, *sorted((met, new), key=lambda m: len(m.axes)))
    pool.append(new)


def _meet(state: State, node: fx.Node, narrow: _Met, wide: _Met) -> _Met:
    """Two facets with an axis in common become one.

    Channels seen as heads times widths may meet a constant vector of widths (rotary embeddings, a norm within each
    head). With attention="heads" the heads are what can go, and the vector stays; otherwise the widths are.
    """
    if state.attention == "heads" and narrow.constant and not wide.constant and narrow.axes < wide.axes:
        state.refuse(node, narrow.facet, "heads")
        return _Met(tie(state.identities, wide.facet, narrow.axes), False)
    state.identities.unite(narrow.facet, wide.facet)
    return _Met(tie(state.identities, narrow.facet, narrow.axes - wide.axes), narrow.constant and wide.constant)


def gated_halves(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """glu: the first half times the sigmoid of the second."""
    source: Identified = args[0]
    dim = argument(node, args, kwargs, "dim") % source.dim
    half = source.shape[dim] // 2
    shape = tuple(half if d == dim else s for d, s in enumerate(source.shape))
    halves = [
        Identified(shape, [compress(f.narrow(dim, k * half, half)) for f in source.facets], origin=source.origin)
        for k in (0, 1)
    ]
    return unite_elementwise(state, node, halves)
