"""From united identities to groups: classes made removable as whole hyperplanes, alike ones put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import operator_name
from pocketprune.structure.propagation import Contraction, Identified, Identities, Slice, State, varying
from pocketprune.structure.propagation.roles import mixed
from pocketprune.structure.propagation.rules import identified_in
from pocketprune.structure.propagation.values import core, tie

JOINS = frozenset(
    (
        "cat",
        "concat",
        "concatenate",
        "stack",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "narrow",
        "getitem",
        "unsafe_split",
        "unsafe_chunk",
        "tensor_split",
        "slice_scatter",
        "select_scatter",
    )
)
"""Operators that a tensor of no channels at all passes without harm."""


def make_rectangular(identities: Identities, values: dict[fx.Node, Any]) -> None:
    """Unite identities until what can be removed from every tensor is whole hyperplanes.

    Where a facet still varies along several axes with channels of their own, it is united along the axis that leaves
    more channels.
    """
    wide = _distinct_facets(values)
    changed = bool(wide)
    while changed:
        changed = False
        labels = _removable_labels(identities)
        for facet in wide:
            if not _is_rectangular(labels[facet], facet == 0):
                _unite_for_most(identities, facet, labels[facet])
                labels, changed = _removable_labels(identities), True


def _distinct_facets(values: dict[fx.Node, Any]) -> list[Tensor]:
    """The facets that vary along several axes, constant axes dropped, each content once."""
    found: dict[Any, Tensor] = {}
    for value in identified_in(list(values.values())):
        for facet in value.facets:
            if len(axes := varying(facet)) > 1:
                distinct = facet[tuple(slice(None) if d in axes else 0 for d in range(facet.dim()))].contiguous()
                found.setdefault((tuple(distinct.shape), distinct.numpy().tobytes()), distinct)
    return list(found.values())


def _removable_labels(identities: Identities) -> Tensor:
    """The class of each identity, 0 for those that cannot go anyway (and for padded zeros)."""
    classes = identities.classes() + 1
    stays = np.zeros(int(classes.max()) + 1, dtype=bool)
    stays[list(identities.pin_reasons(classes))] = True
    classes[stays[classes]] = 0
    classes[0] = 0
    return torch.from_numpy(classes)


def _is_rectangular(labels: Tensor, padding: Tensor) -> bool:
    """Whether every class fills whole hyperplanes of one axis, padded zeros aside."""
    for axis in range(labels.dim()):
        others = tuple(d for d in range(labels.dim()) if d != axis)
        if bool(((labels == labels.amax(dim=others, keepdim=True)) | padding).all()):
            return True
    return False


def _unite_for_most(identities: Identities, facet: Tensor, labels: Tensor) -> None:
    """Unite along all axes but the one that leaves most classes to choose from."""

    def left(axis: int) -> int:
        others = tuple(d for d in range(facet.dim()) if d != axis)
        lowest, highest = labels.amin(dim=others), labels.amax(dim=others)
        return int((highest[lowest > 0]).unique().numel())

    best = max(range(facet.dim()), key=left)
    tie(identities, facet, [d for d in range(facet.dim()) if d != best])


@dataclass(frozen=True)
class Group:
    """Classes with the same footprint.

    Attributes:
        classes: their labels, in the order of the first producer's channels. channels: the slices of each.
        producers, readers: what writes and reads them, in forward order.
        reason: why they must stay, or "". inexact: which statistics change when some go, or "".
    """

    classes: list[int]
    channels: list[list[Slice]]
    producers: list[Contraction]
    readers: list[Contraction]
    reason: str
    inexact: str


def find_groups(state: State, values: dict[fx.Node, Any], classes: np.ndarray, parts: np.ndarray) -> list[Group]:
    """The channel groups in forward order of their first producer."""
    return _Finder(state, classes, presence(values, classes, parts)).groups()


class _Finder:
    def __init__(self, state: State, classes: np.ndarray, present: np.ndarray) -> None:
        self.layers, self.classes, self.presence = state.contractions, classes, present
        self.writes, self.reads = self._roles(False), self._roles(True)
        self.slices = {c: p for c, p in state.identities.slices(classes, self.writes).items() if p}
        self.reasons = state.identities.pin_reasons(classes)
        self.inexact = state.identities.inexact_reasons(classes)
        self.first = self._first_positions()

    def _roles(self, reading: bool) -> dict[int, list[int]]:
        """The contractions, by number, that read (or write) each class; carriers do neither."""
        roles: dict[int, list[int]] = {}
        for number, layer in enumerate(self.layers):
            ids = layer.in_ids if reading else layer.out_ids
            for label in np.unique(self.classes[ids.numpy()]).tolist() if ids is not None and not layer.carrier else ():
                roles.setdefault(label, []).append(number)
        return roles

    def _first_positions(self) -> dict[int, tuple[int, int]]:
        """The first producer of each class, and its first place among that producer's outputs."""
        first: dict[int, tuple[int, int]] = {}
        for number, layer in enumerate(self.layers):
            if layer.out_ids is not None and not layer.carrier:
                labels, places = np.unique(self.classes[layer.out_ids.numpy()], return_index=True)
                for label, place in zip(labels.tolist(), places.tolist(), strict=True):
                    first.setdefault(label, (number, place))
        return first

    def groups(self) -> list[Group]:
        families: dict[Any, list[int]] = {}
        for label in sorted(self.slices, key=self.first.__getitem__):
            families.setdefault(self._footprint(label), []).append(label)
        return [self._group(labels) for labels in families.values()]

    def _footprint(self, label: int) -> Any:
        """What channels of one group have in common: as many slices of the same tensors, layers and values."""
        counts: dict[tuple[str, int], int] = {}
        for piece in self.slices[label]:
            counts[piece.tensor, piece.axis] = counts.get((piece.tensor, piece.axis), 0) + 1
        return (
            tuple(counts.items()),
            tuple(self.writes[label]),
            tuple(self.reads.get(label, ())),
            self.reasons.get(label, ""),
            label in self.inexact,
            int(self.presence[label]),
        )

    def _group(self, labels: list[int]) -> Group:
        reason = self.reasons.get(labels[0], "")
        if not reason and len(labels) < 2:
            reason = "it has one channel"
        return Group(
            labels,
            [self.slices[c] for c in labels],
            [self.layers[n] for n in self.writes[labels[0]]],
            [self.layers[n] for n in self.reads.get(labels[0], [])],
            reason,
            self.inexact.get(labels[0], ""),
        )


def presence(values: dict[fx.Node, Any], classes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """For each class a number for the tensors that it has channels in and that an operator works on, and in what part.

    Channels of one group have the same number, so that they are interchangeable, and that keeping one of the group
    leaves none of these tensors empty.
    """
    marks = np.zeros(int(classes.max(initial=0)) + 1, dtype=np.uint64)
    for position, value in enumerate(_worked_on(values), start=1):
        for facet in value.facets:
            ids, counts = np.unique(core(facet).numpy(), return_counts=True)
            np.add.at(marks, classes[ids], mixed(parts[ids] + np.uint64(position)) * counts.astype(np.uint64))
    return marks


def _worked_on(values: dict[fx.Node, Any]) -> Iterator[Identified]:
    """The values with channels that some operator reads as a whole."""
    for node, value in values.items():
        if (
            isinstance(value, Identified)
            and node.op == "call_function"
            and (
                any(not varying(facet) for facet in value.facets)  # one channel: its axis cannot be told
                or any(user.op == "output" or operator_name(user) not in JOINS for user in node.users)
            )
        ):
            yield value
