"""Layers that normalise: per channel (batch and instance norm), over channels (layer norm), over groups of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pocketprune.graph.nodes import schema_of
from pocketprune.structure.propagation.elementwise import unite_elementwise, with_extras
from pocketprune.structure.propagation.rules import State, argument, identified_in
from pocketprune.structure.propagation.values import Identified, apart_from, compress, tie, varying


def per_channel(value: Identified, rank: int, axis: int) -> Identified:
    """A vector of parameters laid along one axis of a value of some rank."""
    shape = tuple(value.shape[0] if d == axis else 1 for d in range(rank))
    return Identified(shape, [facet.view(shape) for facet in value.facets], constant=value.constant)


def batch_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One parameter a channel, channels do not mix; statistics taken on the spot mix what lies along other axes."""
    source: Identified = args[0]
    vectors = [v for v in identified_in((args[1:], kwargs)) if v.dim == 1]
    axis = 1 if source.dim > 1 else 0
    if takes_statistics(node, args, kwargs):
        others = tuple(d for d in range(source.dim) if d != axis)
        facets = [across_statistics(state, node, facet, others) for facet in source.facets]
        source = Identified(source.shape, facets, constant=source.constant, origin=source.origin)
    return with_extras(
        node, unite_elementwise(state, node, [source, *[per_channel(v, source.dim, axis) for v in vectors]])
    )


_ON_THE_SPOT = ("training", "use_input_stats")
"""Arguments by which a normalisation is told to use the statistics of what it is given."""


def takes_statistics(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a norm uses the statistics of what it is given, not running ones."""
    declared = {a.name for a in schema_of(node).arguments}
    return any(bool(argument(node, args, kwargs, name)) for name in _ON_THE_SPOT if name in declared)


def layer_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Statistics over the last axes: channels there mix, so they stay, unless inexact removal is asked for."""
    source, *weights = identified_in((args, kwargs))
    shape = argument(node, args, kwargs, "normalized_shape")
    normalized = range(source.dim - len(shape), source.dim)
    facets = [across_statistics(state, node, facet, normalized) for facet in source.facets]
    source = Identified(source.shape, facets, origin=source.origin)
    return with_extras(node, unite_elementwise(state, node, [source, *weights]))


def across_statistics(state: State, node: fx.Node, facet: Tensor, axes: range | tuple[int, ...]) -> Tensor:
    """A facet after statistics over some axes: what mixes goes together if it can, stays if not."""
    if not set(axes) & set(varying(facet)):
        return facet
    left = apart_from(state.identities, facet, axes)  # e.g. a norm within each head: the head goes as a whole
    if left is not None:
        return left
    state.mix(node, facet)
    return facet


def weight_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A direction over its norm, times a length: the norm mixes what lies along all axes but `dim` (-1: along all)."""
    direction: Identified = args[0]
    length: Identified = args[1]
    dim = argument(node, args, kwargs, "dim")
    axes = tuple(d for d in range(direction.dim) if d != dim)
    facets = [across_statistics(state, node, facet, axes) for facet in direction.facets]
    scaled = Identified(direction.shape, facets, constant=direction.constant)
    return with_extras(node, unite_elementwise(state, node, [scaled, length]))


def group_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Whole normalisation groups can go exactly; parts of them only when inexact removal is asked for."""
    source: Identified = args[0]
    native = schema_of(node).name.endswith("native_group_norm")
    groups = argument(node, args, kwargs, "group" if native else "num_groups")
    weights = [
        v
        for v in (argument(node, args, kwargs, "weight"), argument(node, args, kwargs, "bias"))
        if isinstance(v, Identified)
    ]
    result = unite_elementwise(state, node, [source, *[per_channel(w, source.dim, 1) for w in weights]])
    channels = source.shape[1]
    for facet in result.facets:
        if 1 in varying(facet) and groups < channels:
            grouped = facet.reshape(facet.shape[0], groups, channels // groups, *facet.shape[2:])
            _tie_groups(state, node, compress(grouped), groups)
    return with_extras(node, result)


def _tie_groups(state: State, node: fx.Node, grouped: Tensor, groups: int) -> None:
    if state.allow_inexact or groups == 1:
        state.mix(node, grouped)
        if state.allow_inexact:
            tie(state.identities, grouped, (1,))
    else:
        tie(state.identities, grouped, (2,))
