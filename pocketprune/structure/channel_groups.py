"""Channel groups: which channels must be removed together, with every parameter slice that goes with them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from .propagation import Contraction, Identified, Slice, propagate, varying
from .tracing import ExampleInputs, TracedNet, module_path, trace


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are alike: each can be removed, with all its slices, independently of the others.

    Attributes:
        name: path of the first layer that writes it (with a number where that layer writes several groups).
        size: channels in the group.
        prunable: whether they can be removed; `reason` says why not, naming the node.
        exact: False where a normalisation mixes the channels, so that removal changes its statistics.
        channels: per channel, its slices `(tensor, axis, index)`.
        producers, consumers: names of the weights that write and read it, in forward order.
    """

    name: str
    size: int
    prunable: bool
    reason: str
    exact: bool
    channels: tuple[tuple[Slice, ...], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    classes: tuple[int, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        state = "" if self.prunable else f"  [stays: {self.reason}]"
        inexact = "" if self.exact else "  [inexact]"
        return f"{self.name}: {self.size} channels, {' + '.join(self.producers)} -> " \
               f"{' + '.join(self.consumers) or 'nothing'}{inexact}{state}"

    def slices(self, channels: Sequence[int]) -> dict[tuple[str, int], list[int]]:
        """(tensor, axis) -> indices that belong to these channels."""
        found: dict[tuple[str, int], list[int]] = {}
        for channel in channels:
            for piece in self.channels[channel]:
                found.setdefault((piece.tensor, piece.axis), []).append(piece.index)
        return found


@dataclass
class Structure:
    """A traced network with its identities resolved.

    Attributes:
        groups: all channel groups in forward order, those that stay included.
        contractions: every layer that sums over channels, in forward order.
        values: node -> identity tensors. `classes[identity]` is its class; a group lists its classes.
    """

    traced: TracedNet
    groups: list[ChannelGroup]
    contractions: list[Contraction]
    values: dict[fx.Node, Any]
    classes: np.ndarray
    axes: list[tuple[int, int, str, int]]

    def class_of(self, ids: Tensor) -> np.ndarray:
        """Classes of a vector of identities."""
        return self.classes[ids.numpy()]

    def group(self, name: str) -> ChannelGroup:
        return next(g for g in self.groups if g.name == name)


def find_channel_groups(net: nn.Module, example_inputs: ExampleInputs, *, attention: str = "heads",
                        allow_inexact: bool = False) -> list[ChannelGroup]:
    """The channel groups of a network, in forward order; those that must stay say why.

    Args:
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        attention: "heads" removes whole heads, "widths" narrows all heads alike (queries/keys and values apart).
        allow_inexact: also list channels that a layer or group norm mixes as prunable (statistics change).

    Raises:
        UserError: the network cannot be traced.
    """
    return analyse(net, example_inputs, attention=attention, allow_inexact=allow_inexact).groups


def analyse(net: nn.Module, example_inputs: ExampleInputs, *, attention: str = "heads",
            allow_inexact: bool = False) -> Structure:
    """Trace a network and resolve its identities into channel groups."""
    traced = trace(net, example_inputs)
    with torch.no_grad():
        state, values = propagate(traced, attention, allow_inexact)
        _make_rectangular(state.identities, values)
    classes = state.identities.classes()
    finder = _GroupFinder(state.contractions, classes, state.identities)
    return Structure(traced, finder.groups(), state.contractions, values, classes, state.identities.axes())


def _make_rectangular(identities: Any, values: dict[fx.Node, Any]) -> None:
    """What is removed from a tensor must be whole hyperplanes: where a facet still varies along several axes with
    channels of their own, unite along the axis that leaves more channels."""
    wide = [f for v in values.values() for one in (v if isinstance(v, tuple) else (v,))
            if isinstance(one, Identified) for f in one.facets if len(varying(f)) > 1]
    changed = bool(wide)
    while changed:
        changed = False
        classes = torch.from_numpy(identities.classes())
        for facet in wide:
            labels = classes[_distinct(facet)]
            if not _is_rectangular(labels):
                _unite_for_most(identities, _distinct(facet), labels)
                changed = True
                break


def _distinct(facet: Tensor) -> Tensor:
    """The facet with constant axes dropped."""
    return facet[tuple(slice(None) if d in varying(facet) else 0 for d in range(facet.dim()))]


def _is_rectangular(labels: Tensor) -> bool:
    """Whether every class fills whole hyperplanes of one axis."""
    for axis in range(labels.dim()):
        first = labels
        for other in range(labels.dim()):
            if other != axis:
                first = first.narrow(other, 0, 1)
        if bool((labels == first).all()):
            return True
    return False


def _unite_for_most(identities: Any, field_: Tensor, labels: Tensor) -> None:
    def leave(axis: int) -> tuple[Tensor, int]:
        first, first_label = field_, labels
        for other in range(field_.dim()):
            if other != axis:
                first, first_label = first.narrow(other, 0, 1), first_label.narrow(other, 0, 1)
        return first, len(first_label.unique())
    best = max(range(field_.dim()), key=lambda a: leave(a)[1])
    identities.unite(field_, leave(best)[0].expand(field_.shape))


class _GroupFinder:
    """Classes with the same footprint form one channel group."""

    def __init__(self, contractions: list[Contraction], classes: np.ndarray, identities: Any) -> None:
        self.contractions, self.classes = contractions, classes
        self.slices = identities.slices(classes)
        self.reasons = identities.pin_reasons(classes)
        self.inexact = {int(c) for ids in identities.inexact for c in np.unique(classes[ids])}
        self.writes, self.reads = self._roles()

    def _roles(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """class -> contractions (by number) that write it, that read it."""
        writes: dict[int, list[int]] = {}
        reads: dict[int, list[int]] = {}
        for number, layer in enumerate(self.contractions):
            if layer.out_ids is not None and not layer.carrier:
                for c in np.unique(self.classes[layer.out_ids.numpy()]):
                    writes.setdefault(int(c), []).append(number)
            if layer.in_ids is not None and not layer.carrier:
                for c in np.unique(self.classes[layer.in_ids.numpy()]):
                    reads.setdefault(int(c), []).append(number)
        return writes, reads

    def groups(self) -> list[ChannelGroup]:
        families: dict[Any, list[int]] = {}
        for label in sorted(set(self.writes) & set(self.slices), key=self._first_slice):
            families.setdefault(self._footprint(label), []).append(label)
        ordered = sorted(families.values(), key=lambda labels: (self.writes[labels[0]], self._first_slice(labels[0])))
        bases = [self._base(labels[0]) for labels in ordered]
        groups = []
        for number, labels in enumerate(ordered):
            same = [n for n, base in enumerate(bases) if base == bases[number]]
            suffix = f"#{same.index(number) + 1}" if len(same) > 1 else ""
            groups.append(self._group(bases[number] + suffix, labels))
        return groups

    def _footprint(self, label: int) -> Any:
        counts: dict[tuple[str, int], int] = {}
        for piece in self.slices[label]:
            counts[piece.tensor, piece.axis] = counts.get((piece.tensor, piece.axis), 0) + 1
        return (tuple(sorted(counts.items())), tuple(self.writes.get(label, ())), tuple(self.reads.get(label, ())),
                self.reasons.get(label, ""))

    def _first_slice(self, label: int) -> tuple[int, int]:
        layer = self.contractions[self.writes[label][0]]
        position = int(np.flatnonzero(self.classes[layer.out_ids.numpy()] == label)[0])
        return self.writes[label][0], position

    def _base(self, label: int) -> str:
        return layer_name(self.contractions[self.writes[label][0]])

    def _group(self, name: str, labels: list[int]) -> ChannelGroup:
        def weights(numbers: list[int]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(layer_name(self.contractions[n]) for n in numbers))
        first = labels[0]
        reason = self.reasons.get(first, "")
        if not reason and first not in self.reads:
            reason = "no layer reads it"
        if not reason and len(labels) < 2:
            reason = "it has one channel"
        return ChannelGroup(name=name, size=len(labels), prunable=not reason, reason=reason,
                            exact=first not in self.inexact,
                            channels=tuple(tuple(self.slices[c]) for c in labels),
                            producers=weights(self.writes[first]), consumers=weights(self.reads.get(first, [])),
                            classes=tuple(labels))


def layer_name(layer: Contraction) -> str:
    """Path of the module a contraction belongs to, or the name of its raw weight."""
    if layer.weight is None:
        return module_path(layer.node) or layer.node.name
    return layer.weight.removesuffix(".weight")
