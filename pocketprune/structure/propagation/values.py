"""Identity tensors: what flows through the graph in place of numbers.

Every index of every axis of every parameter and buffer has an identity (an integer). A value carries *facets*:
integer tensors of the value's own shape, each telling, per element, the identity along one direction. An activation
has one facet (its channels); a weight matrix has one per axis. An element disappears when any of its identities is
removed. Directions along which a facet is constant have stride 0, which keeps large maps as cheap as small ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pocketprune.structure.propagation.roles import Links

_COPIES = 1 << 18
"""Repeated elements are told apart in fields of up to this many."""


@dataclass
class Identified:
    """A tensor value seen as identities.

    Attributes:
        shape: the value's shape at the traced inputs.
        facets: int64 tensors of that shape, varying along disjoint axes; none = nothing in it can be removed.
        data: the numbers, where they are known and may serve as indices.
        constant: whether it follows from parameters, buffers and literals alone, not from the network's inputs.
        origin: for a value without facets, what it is ("a network input"), for messages.
    """

    shape: tuple[int, ...]
    facets: list[Tensor] = field(default_factory=list)
    data: Tensor | None = None
    constant: bool = False
    origin: str = ""

    @property
    def dim(self) -> int:
        """The number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Slice:
    """One index of one axis of a parameter or buffer."""

    tensor: str
    axis: int
    index: int


class Identities:
    """All identities, which of them are one (`unite`), and which must stay (`pin`)."""

    def __init__(self) -> None:
        self.count = 1  # identity 0 is "nothing": zeros that an operator pads with unite with nothing
        self._inexact: list[tuple[np.ndarray, str]] = []
        self._pairs: list[np.ndarray] = []  # columns: identity, identity, event and place in it
        self._events = 0
        self._pins: list[tuple[np.ndarray, str]] = []
        self._axes: list[tuple[int, int, str, int]] = []  # first id, size, tensor, axis
        self.made: list[tuple[int, int, Any, int]] = []  # first id, size, whoever made the constant, axis

    def fresh(self, count: int) -> Tensor:
        """Return new identities."""
        ids = torch.arange(self.count, self.count + count)
        self.count += count
        return ids

    def of_tensor(self, name: str, shape: Sequence[int]) -> list[Tensor]:
        """Facets of a parameter or buffer: one per axis longer than 1."""
        return self._facets(shape, name, self._axes)

    def generated(self, shape: Sequence[int], maker: Any) -> list[Tensor]:
        """Facets of a constant the network makes itself: free to shrink along every axis."""
        return self._facets(shape, maker, self.made)

    def _facets(self, shape: Sequence[int], owner: Any, known: list[tuple[int, int, Any, int]]) -> list[Tensor]:
        """One facet per axis longer than 1; which identities they are is noted in `known`."""
        facets = []
        for axis, size in enumerate(shape):
            if size > 1:
                known.append((self.count, size, owner, axis))
                facets.append(along_axis(self.fresh(size), shape, axis))
        return facets

    def pinned_id(self, reason: str) -> Tensor:
        """Return a new identity that cannot be removed."""
        ids = self.fresh(1)
        self.pin(ids, reason)
        return ids

    def unite(self, a: Tensor, b: Tensor) -> None:
        """The identities of two fields of one (broadcast) shape are one, element by element."""
        a, b = torch.broadcast_tensors(a, b)
        keep = tuple(slice(None) if a.stride(d) or b.stride(d) else slice(0, 1) for d in range(a.dim()))
        a, b = a[keep], b[keep]
        triples = torch.stack([a.reshape(-1), b.reshape(-1), self._places(a, b).reshape(-1)], dim=1)
        triples = triples[(triples[:, 0] != triples[:, 1]) & (triples[:, :2] != 0).all(dim=1)]
        if len(triples):
            self._pairs.append(np.unique(triples.numpy(), axis=0) if len(triples) > 4096 else triples.numpy())

    def _places(self, a: Tensor, b: Tensor) -> Tensor:
        """A number for this event and, where one element meets several, for the place among them."""
        one_sided = [d for d in range(a.dim()) if a.shape[d] > 1 and bool(a.stride(d)) != bool(b.stride(d))]
        shape = [a.shape[d] if d in one_sided else 1 for d in range(a.dim())]
        count = math.prod(shape)
        self._events += count
        return torch.arange(self._events - count, self._events).view(shape).expand(a.shape)

    def told_apart(self, facet: Tensor) -> Tensor:
        """The facet with identities of their own for repeated elements: copies go together, but play other parts."""
        keep = tuple(slice(None) if d in varying(facet) else slice(0, 1) for d in range(facet.dim()))
        ids = facet[keep].reshape(-1)
        if len(ids) > _COPIES or len(ids) < 2:
            return facet
        order = ids.argsort(stable=True)
        runs = ids[order]
        starts = torch.ones_like(runs, dtype=torch.bool)
        starts[1:] = runs[1:] != runs[:-1]
        if bool((starts | (runs == 0)).all()):
            return facet
        first = torch.where(starts, torch.arange(len(runs)), 0).cummax(0).values
        rank = torch.empty_like(ids)
        rank[order] = torch.arange(len(runs)) - first
        fresh = torch.where(ids == 0, 0, self.fresh(len(ids)))
        places = self._events + rank
        self._events += int(rank.max()) + 1
        triples = torch.stack([ids, fresh, places], dim=1)[ids != 0]
        self._pairs.append(triples.numpy())
        return fresh.view(facet[keep].shape).expand(facet.shape)

    def pin(self, ids: Tensor, reason: str) -> None:
        """None of these identities can be removed."""
        self._pins.append((np.unique(core(ids).numpy()), reason))

    def mark_inexact(self, ids: Tensor, reason: str) -> None:
        """Removing these changes statistics that other channels are normalised with."""
        self._inexact.append((np.unique(core(ids).numpy()), reason))

    def classes(self) -> np.ndarray:
        """Class label of every identity."""
        pairs = self._all_pairs()
        graph = coo_matrix(
            (np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(self.count, self.count)
        )
        labels: np.ndarray = connected_components(graph, directed=False)[1]
        return labels

    def _all_pairs(self) -> np.ndarray:
        if len(self._pairs) > 1:
            self._pairs = [np.concatenate(self._pairs)]
        return self._pairs[0] if self._pairs else np.zeros((0, 3), dtype=np.int64)

    def links(self) -> Links:
        """What was united with what, for telling the parts that identities play in their classes."""
        kind = np.zeros(self.count, dtype=np.int64)
        for number, (first, size, *_) in enumerate((*self._axes, *self.made), start=1):
            kind[first : first + size] = number
        pairs = self._all_pairs()
        return Links(pairs[:, :2], pairs[:, 2], kind)

    def pin_reasons(self, classes: np.ndarray) -> dict[int, str]:
        """Why each class that must stay does so (the first reason given)."""
        return _first_reasons(self._pins, classes)

    def inexact_reasons(self, classes: np.ndarray) -> dict[int, str]:
        """Which statistics change when a class goes (the first reason given), by class."""
        return _first_reasons(self._inexact, classes)

    def slices(self, classes: np.ndarray, wanted: Iterable[int]) -> dict[int, list[Slice]]:
        """The tensor slices that go with each wanted class."""
        result: dict[int, list[Slice]] = {label: [] for label in wanted}
        asked = np.zeros(int(classes.max(initial=0)) + 1, dtype=bool)
        asked[list(result)] = True
        for start, size, name, axis in self._axes:
            labels = classes[start : start + size]
            places = np.flatnonzero(asked[labels])
            for label, index in zip(labels[places].tolist(), places.tolist(), strict=True):
                result[label].append(Slice(name, axis, index))
        return result

    def axes(self) -> list[tuple[int, int, str, int]]:
        """(first identity, size, tensor name, axis) of every tensor axis."""
        return self._axes


def _first_reasons(given: Iterable[tuple[np.ndarray, str]], classes: np.ndarray) -> dict[int, str]:
    """The first reason given for an identity of each class."""
    reasons: dict[int, str] = {}
    for ids, reason in given:
        for label in np.unique(classes[ids]):
            reasons.setdefault(int(label), reason)
    return reasons


def along_axis(ids: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """A field of `shape` that is `ids` along `axis` and constant along the others."""
    view = [1] * len(shape)
    view[axis] = -1
    return ids.view(view).expand(tuple(shape))


def varying(facet: Tensor) -> tuple[int, ...]:
    """Axes along which a facet is not constant."""
    return tuple(d for d in range(facet.dim()) if facet.shape[d] > 1 and facet.stride(d) != 0)


def core(facet: Tensor) -> Tensor:
    """The facet's distinct part: one index along every constant direction, flattened."""
    return facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))].reshape(-1)


def compress(facet: Tensor) -> Tensor:
    """The same field with stride 0 along every direction in which it happens to be constant.

    Padded zeros agree with whatever else there is: they go with the channel they lie in.
    """
    for axis in varying(facet):
        first = facet.narrow(axis, 0, 1) if bool(facet.select(axis, 0).any()) else facet.amax(dim=axis, keepdim=True)
        same = facet == first
        if not bool(same.all()) and not bool(facet.all()):
            first = facet.amax(dim=axis, keepdim=True)
            same = (facet == first) | (facet == 0)
        if bool(same.all()):
            facet = first.expand(facet.shape)
    return facet


def tie(identities: Identities, facet: Tensor, axes: Iterable[int]) -> Tensor:
    """Unite what differs along some axes; the facet left, constant along them."""
    axes = tuple(axis for axis in axes if axis in varying(facet))
    if not axes:
        return facet
    distinct = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
    first = distinct.amax(dim=axes, keepdim=True)  # any identity but 0, which stands for padded zeros
    identities.unite(distinct, first.expand(distinct.shape))
    return first.expand(facet.shape)


def apart_from(identities: Identities, facet: Tensor, axes: Iterable[int]) -> Tensor | None:
    """The facet made constant along some axes; None, and nothing united, where it varies along no others."""
    axes = set(axes)
    return tie(identities, facet, axes) if set(varying(facet)) - axes else None


def vector(identities: Identities, facet: Tensor, axis: int) -> Tensor:
    """Make a facet vary along `axis` alone, uniting what differs along the others; its vector along `axis`."""
    facet = tie(identities, facet, [a for a in varying(facet) if a != axis])
    return facet[tuple(slice(None) if d == axis else 0 for d in range(facet.dim()))]
