"""Channel groups: which channels must be removed together, with every parameter slice that goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.tracing import ExampleInputs, TracedNet, module_path, trace
from pocketprune.structure.batches import thawed
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.grouping import Group, find_groups, make_rectangular
from pocketprune.structure.ignoring import without_ignored
from pocketprune.structure.propagation import Contraction, State, propagate
from pocketprune.structure.propagation.roles import roles

ATTENTION = ("heads", "widths")


@dataclass
class Structure:
    """A traced network with its identities resolved.

    Attributes:
        groups: all channel groups in forward order, those that stay included.
        contractions: every layer that sums over channels with a weight, in forward order.
        products: what reads channels without one, in forward order.
        made: (first identity, size, node, axis) of every axis of the constants that the network makes itself.
        parts: the part that each identity plays in its class; equal ones in two classes are counterparts.
        attention, allow_inexact, ignore: as it was analysed.
        values: node -> identity tensors. `classes[identity]` is its class; a group lists its classes.
    """

    traced: TracedNet
    groups: list[ChannelGroup]
    contractions: list[Contraction]
    values: dict[fx.Node, Any]
    classes: np.ndarray
    axes: list[tuple[int, int, str, int]]
    products: list[Contraction] = field(default_factory=list)
    made: list[tuple[int, int, fx.Node, int]] = field(default_factory=list)
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    attention: str = "heads"
    allow_inexact: bool = False
    ignore: tuple[str, ...] = ()

    def class_of(self, ids: Tensor) -> np.ndarray:
        """Classes of a vector of identities."""
        classes: np.ndarray = self.classes[ids.numpy()]
        return classes

    def group(self, name: str) -> ChannelGroup:
        """Return the group of a name."""
        return next(g for g in self.groups if g.name == name)


def find_channel_groups(
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    attention: str = "heads",
    allow_inexact: bool = False,
    ignore: Sequence[str] = (),
) -> list[ChannelGroup]:
    """The channel groups of a network, in forward order; those that must stay say why.

    Args:
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        attention: "heads" removes whole heads, "widths" narrows all heads alike (queries/keys and values apart).
        allow_inexact: also list channels that a layer or group norm mixes as prunable (statistics change).
        ignore: names of groups, or of layers and modules whose channels are to stay; wildcards are taken.

    Raises:
        UserError: the network cannot be traced, or there is no group or layer of a name to ignore.
    """
    return analyse(net, example_inputs, attention=attention, allow_inexact=allow_inexact, ignore=ignore).groups


def analyse(
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    attention: str = "heads",
    allow_inexact: bool = False,
    ignore: Sequence[str] = (),
) -> Structure:
    """Trace a network and resolve its identities into channel groups; see `find_channel_groups`."""
    if attention not in ATTENTION:
        raise UserError(f"attention: '{attention}' given{nearest(attention, ATTENTION)}")
    structure = resolve(thawed(trace(net, example_inputs)), attention=attention, allow_inexact=allow_inexact)
    structure.groups, structure.ignore = without_ignored(structure.groups, structure.traced.net, ignore)
    return structure


def resolve(traced: TracedNet, *, attention: str = "heads", allow_inexact: bool = False) -> Structure:
    """The channel groups of a traced network, and all that is known of its channels."""
    with torch.no_grad():
        state, values = propagate(traced, attention, allow_inexact)
        make_rectangular(state.identities, values)
    classes = state.identities.classes()
    parts = roles(state.identities.links(), classes)
    layers = [c for c in state.contractions if c.kind != "product"]
    products = [c for c in state.contractions if c.kind == "product"]
    return Structure(
        traced,
        channel_groups(state, values, classes, parts),
        layers,
        values,
        classes,
        state.identities.axes(),
        products,
        state.identities.made,
        parts,
        attention=attention,
        allow_inexact=allow_inexact,
    )


def channel_groups(
    state: State, values: dict[fx.Node, Any], classes: np.ndarray, parts: np.ndarray
) -> list[ChannelGroup]:
    """The groups of resolved identities with their names; a layer that writes several numbers them."""
    found = find_groups(state, values, classes, parts)
    bases = [layer_name(group.producers[0]) for group in found]
    groups = []
    for number, (base, group) in enumerate(zip(bases, found, strict=True)):
        suffix = f"#{bases[:number].count(base) + 1}" if bases.count(base) > 1 else ""
        groups.append(_named(base + suffix, group))
    return groups


def _named(name: str, group: Group) -> ChannelGroup:
    readers = [c for c in group.readers if c.weight is not None]
    products = [c for c in group.readers if c.weight is None]
    return ChannelGroup(
        name=name,
        size=len(group.classes),
        prunable=not group.reason,
        reason=group.reason,
        exact=not group.inexact,
        channels=tuple(tuple(pieces) for pieces in group.channels),
        producers=_names(group.producers),
        consumers=_names(readers),
        classes=tuple(group.classes),
        products=_names(products),
        inexact_reason=group.inexact,
    )


def _names(layers: Sequence[Contraction]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer_name(c) for c in layers))


def layer_name(layer: Contraction) -> str:
    """Path of the module a contraction belongs to, or the name of its raw weight."""
    if layer.weight is None:
        return module_path(layer.node) or layer.node.name
    return layer.weight.removesuffix(".weight")
