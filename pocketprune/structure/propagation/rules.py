"""The table: operator name -> how identities pass through it. An operator not listed pins what it touches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import schema_of
from pocketprune.graph.tracing import concrete_shape, describe
from pocketprune.structure.propagation.values import Identified, Identities

STATISTICS_MIX = "its statistics mix these channels"

REFUSALS = {
    "unknown": "this operator is not known to keep channels apart",
    "mixed": "it mixes these channels",
    "statistics": f"{STATISTICS_MIX} (allow_inexact=True removes them all the same)",
    "combined": "combined with {other}, which cannot be thinned alike",
    "joined": "joined along another axis with {other}, which cannot be thinned alike",
    "read": "read together with {other}, which cannot be thinned alike",
    "axis": "channels are read along another axis",
    "index": "its indices depend on the data or on channels",
    "overlap": "two kinds of channels share one axis",
    "sequence": "{other} of channels is not followed",
    "heads": "whole heads are removed (attention='widths' removes widths within every head)",
    "groups": "whole groups are removed, not parts of them",
}
"""Why a node's channels must stay, in words; a message is the node's description, a colon and one of these."""


@dataclass(frozen=True)
class Contraction:
    """A node that sums over channels with a weight: a consumer of `in_ids`, a producer of `out_ids`.

    Attributes:
        node: the graph node; `kind`: "conv" | "conv_transpose" | "linear" | "matmul" | "embedding" | "product" (of two
            activations, without a weight).
        source: the node whose value is read.
        weight: name of the weight tensor; `bias`: of the bias, or None.
        in_ids: identity of every input channel, shape (c,), or None where the input carries none.
        out_ids: identity of every output channel, shape (n,), or None.
        groups: of a convolution.
        carrier: channels pass through one by one (depthwise): what goes in decides what comes out.
        plain: the weight argument is the named tensor itself, not something computed from it.
    """

    node: fx.Node
    kind: str
    source: fx.Node
    weight: str | None
    bias: str | None
    in_ids: Tensor | None
    out_ids: Tensor | None
    groups: int = 1
    carrier: bool = False
    plain: bool = True


@dataclass(frozen=True)
class ConstantSum:
    """A node that sums over channels (`ids`) of constants, `sources` among them."""

    node: fx.Node
    ids: Tensor
    sources: tuple[fx.Node, ...]


@dataclass
class State:
    """What a rule may read and write.

    Attributes:
        contractions: what reads and writes channels, in forward order.
        tensor_of_node: placeholder -> name of its parameter or buffer.
        repeated: identities along axes made by repeating one element.
        weights: what the contractions multiply activations by.
        sums: over channels of constants; which of them are statistics of a weight is known at the end.
    """

    identities: Identities
    attention: str = "heads"
    allow_inexact: bool = False
    contractions: list[Contraction] = field(default_factory=list)
    tensor_of_node: dict[fx.Node, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    weights: list[fx.Node] = field(default_factory=list)
    sums: list[ConstantSum] = field(default_factory=list)

    def reason(self, node: fx.Node, why: str, **words: str) -> str:
        """A refusal in words, naming the node."""
        return f"{describe(node)}: {REFUSALS[why].format(**words)}"

    def refuse(self, node: fx.Node, facet: Tensor, why: str, **words: str) -> None:
        """Pin a facet's identities."""
        self.identities.pin(facet, self.reason(node, why, **words))

    def mix(self, node: fx.Node, facet: Tensor) -> None:
        """A statistic over these channels changes when some go: they stay, unless inexact removal is asked for."""
        if self.allow_inexact:
            self.identities.mark_inexact(facet, f"{describe(node)}: {STATISTICS_MIX}")
        else:
            self.refuse(node, facet, "statistics")

    def opaque(self, node: fx.Node, values: list[Identified], why: str, **words: str) -> Any:
        """Pin everything a node touches; its value carries no identities."""
        for value in values:
            for facet in value.facets:
                self.refuse(node, facet, why, **words)
        return opaque_result(node)


def opaque_result(node: fx.Node, origin: str = "") -> Any:
    """The node's value(s) without identities."""

    def one(meta: Any) -> Any:
        if not isinstance(meta, Tensor):
            return meta
        return Identified(concrete_shape(meta.shape), origin=origin or f"the result of {describe(node)}")

    meta = node.meta.get("val")
    return tuple(one(m) for m in meta) if isinstance(meta, (tuple, list)) else one(meta)


def origin_of(value: Identified) -> str:
    """What a value is, for messages."""
    return value.origin or "a value of fixed width"


def identified_in(args: Any) -> list[Identified]:
    """The identity tensors among (nested) arguments, in order."""
    found: list[Identified] = []

    def visit(value: Any) -> None:
        if isinstance(value, Identified):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    visit(args)
    return found


Rule = Callable[[State, fx.Node, tuple[Any, ...], dict[str, Any]], Any]
"""rule(state, node, args, kwargs with identity tensors in place of tensors) -> value of the node."""


def argument(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """The operator's argument of that schema name, its default where it was not given."""
    for position, declared in enumerate(schema_of(node).arguments):
        if declared.name == name:
            if name in kwargs:
                return kwargs[name]
            return args[position] if position < len(args) else declared.default_value
    raise KeyError(name)


def flat_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes as non-negative integers; None means all."""
    if axes is None:
        return tuple(range(rank))
    axes = (axes,) if isinstance(axes, int) else axes
    return tuple(a % rank for a in axes) if axes else tuple(range(rank))


def field_like(shape: tuple[int, ...]) -> Tensor:
    """A throw-away field of a shape, in place of a tensor of which only the shape matters."""
    return torch.zeros((), dtype=torch.int64).expand(shape)
