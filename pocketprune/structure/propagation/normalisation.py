"""Layers that normalise: per channel (batch and instance norm), over channels (layer norm), over groups of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pocketprune.structure.propagation.elementwise import unite_elementwise, with_extras
from pocketprune.structure.propagation.rules import State, argument, identified_in
from pocketprune.structure.propagation.values import Identified, apart_from, compress, tie, varying


def per_channel(value: Identified, rank: int, axis: int) -> Identified:
    """A vector of parameters laid along one axis of a value of some rank."""
    shape = tuple(value.shape[0] if d == axis else 1 for d in range(rank))
    return Identified(shape, [facet.view(shape) for facet in value.facets], constant=value.constant)


def batch_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One parameter a channel, channels do not mix."""
    source: Identified = args[0]
    vectors = [v for v in identified_in((args[1:], kwargs)) if v.dim == 1]
    axis = 1 if source.dim > 1 else 0
    return with_extras(
        node, unite_elementwise(state, node, [source, *[per_channel(v, source.dim, axis) for v in vectors]])
    )


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
    if state.allow_inexact:
        state.identities.mark_inexact(facet)
    else:
        state.refuse(node, facet, "statistics")
    return facet


def group_norm(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Whole normalisation groups can go exactly; parts of them only when inexact removal is asked for."""
    source: Identified = args[0]
    native = node.target._schema.name.endswith("native_group_norm")
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
    if state.allow_inexact:
        state.identities.mark_inexact(grouped)
        tie(state.identities, grouped, (1,))
    elif groups == 1:
        state.refuse(node, grouped, "statistics")
    else:
        tie(state.identities, grouped, (2,))
