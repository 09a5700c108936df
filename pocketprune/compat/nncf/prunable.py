"""Which channel groups NNCF prunes, and why it leaves the others alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import fx

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.settings import FilterPruning
from pocketprune.graph.nodes import node_shape
from pocketprune.structure.channel_groups import Structure, layer_name
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.propagation import Contraction
from pocketprune.structure.propagation.rules import argument

PRUNED_KINDS = ("conv", "conv_transpose", "linear")


@dataclass(frozen=True)
class Candidate:
    """One channel group: NNCF's cluster of layers that are pruned together.

    Attributes:
        group: the channel group.
        layers: the layers that write it, depthwise ones included, in forward order.
        reason: why it is left alone; "" where it is pruned.
    """

    group: ChannelGroup
    layers: tuple[Contraction, ...]
    reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(dict.fromkeys(layer_name(layer) for layer in self.layers))


def candidates(structure: Structure, given: FilterPruning, scopes: Scopes) -> list[Candidate]:
    """Return all channel groups in forward order; one layer that must stay lets its whole group stay.

    Raises:
        UserError: a scope means nothing, or nothing is left to prune.
    """
    if given.validated:
        scopes.check(given.ignored, f"{given.path}.ignored_scopes")
        scopes.check(given.targeted or (), f"{given.path}.target_scopes")
    reasons = _reasons(structure, given, scopes)
    found = []
    for group in structure.groups:
        layers = tuple(c for c in structure.contractions if _writes(structure, c, group))
        own = "" if group.prunable else group.reason
        reason = own or next((f"{layer_name(c)} {reasons[id(c)]}" for c in layers if id(c) in reasons), "")
        found.append(Candidate(group, layers, reason))
    if all(candidate.reason for candidate in found):
        shown = "; ".join(f"{c.group.name}: {c.reason}" for c in found[:4])
        raise UserError(f"nothing is left to prune ({shown})", argument=given.path)
    return found


def _reasons(structure: Structure, given: FilterPruning, scopes: Scopes) -> dict[int, str]:
    """Return for each layer that must stay, by its id, why."""
    ignored = scopes.layers(given.ignored)
    targeted = scopes.layers(scopes.names if given.targeted is None else given.targeted)
    first = set() if given.first else first_layers(structure)
    reasons = {}
    for layer in structure.contractions:
        name = layer_name(layer)
        found = {
            "is in ignored_scopes": name in ignored,
            "is not in target_scopes": name not in targeted,
            "is a first layer (prune_first_conv)": id(layer) in first,
            "is strided (prune_downsample_convs)": not given.strided and _is_strided(layer),
            "is a grouped convolution": layer.groups > 1 and not _is_depthwise(layer),
            "is applied to more than one position": layer.kind == "linear" and len(node_shape(layer.node)) > 2,
            "is neither a convolution nor a linear layer": layer.kind not in PRUNED_KINDS,
        }
        if any(found.values()):
            reasons[id(layer)] = next(reason for reason, holds in found.items() if holds)
    return reasons


def first_layers(structure: Structure) -> set[int]:
    """Return the ids of the layers that have no other layer between an input of the network and them."""
    layers = {c.node: c for c in structure.contractions}
    waiting: deque[fx.Node] = deque(structure.traced.input_nodes)
    seen, found = set(waiting), set()
    while waiting:
        for user in _new(waiting.popleft().users, seen):
            if user in layers:
                found.add(id(layers[user]))
            else:
                waiting.append(user)
    return found


def _new(nodes: Iterable[fx.Node], seen: set[fx.Node]) -> list[fx.Node]:
    """Return the nodes that were not seen yet, and note them."""
    new = [node for node in nodes if node not in seen]
    seen.update(new)
    return new


def _writes(structure: Structure, layer: Contraction, group: ChannelGroup) -> bool:
    """Whether a layer's output is among a group's channels."""
    if layer.out_ids is None or layer.weight is None:
        return False
    return bool(np.isin(structure.class_of(layer.out_ids), np.array(group.classes)).any())


def _is_strided(layer: Contraction) -> bool:
    if layer.kind != "conv":
        return False
    stride = argument(layer.node, layer.node.args, layer.node.kwargs, "stride")
    return any(step != 1 for step in (stride if isinstance(stride, (list, tuple)) else [stride]))


def _is_depthwise(layer: Contraction) -> bool:
    widths = [ids for ids in (layer.in_ids, layer.out_ids) if ids is not None]
    return layer.carrier and all(len(ids) == layer.groups for ids in widths)
