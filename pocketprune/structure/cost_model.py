"""Exact cost of a thinned network from the kept counts alone: bilinear in neighbouring widths, no network built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx

from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost import node_macs
from pocketprune.structure.layers import PrunableLayer
from pocketprune.structure.propagation import Contraction


@dataclass(frozen=True)
class Width:
    """A number of channels as a function of the kept counts: fixed + sum of per_count[i] * counts[i]."""

    fixed: float
    per_count: np.ndarray

    def at(self, counts: np.ndarray) -> float:
        """Return the number of channels at these kept counts."""
        return self.fixed + float(self.per_count @ counts)


class _Widths:
    """Many widths at once."""

    def __init__(self, widths: Sequence[Width], decisions: int) -> None:
        self._fixed = np.array([width.fixed for width in widths])
        self._per_count = np.array([width.per_count for width in widths]).reshape(len(widths), decisions)

    def at(self, counts: np.ndarray) -> np.ndarray:
        widths: np.ndarray = self._fixed + self._per_count @ counts
        return widths


@dataclass(frozen=True)
class Decision:
    """What one kept count decides: the units (sets of input channels) that a layer keeps.

    Attributes:
        layer: the prunable layer. units: (u, p) positions of each unit's channels in the layer's input.
        classes: (u, k) classes that go with each unit; empty for a sampled layer, whose input stays whole.
    """

    layer: PrunableLayer
    units: np.ndarray
    classes: np.ndarray

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.units)

    def channels(self, kept: np.ndarray) -> np.ndarray:
        """Sorted input channels of the kept units; a unit of a grouped convolution stands in every group."""
        groups = self.layer.layer.groups
        inside = self.layer.channels // groups
        return np.sort((self.units[kept].ravel()[None, :] + inside * np.arange(groups)[:, None]).ravel())


def decision_of(structure: Structure, layer: PrunableLayer) -> Decision:
    """The units a removable, uncoupled layer chooses among; for a fixed one, its channels as they are."""
    ids = layer.layer.in_ids
    if layer.way != "private" or ids is None:
        return whole_input(layer)
    labels = structure.class_of(ids)[: layer.channels // layer.layer.groups]
    order = list(dict.fromkeys(labels.tolist()))
    units = np.stack([np.flatnonzero(labels == label) for label in order])
    return Decision(layer, units, np.array(order)[:, None])


def whole_input(layer: PrunableLayer) -> Decision:
    """Every input channel (of one group) a unit of its own, nothing else going with it."""
    channels = layer.channels // layer.layer.groups
    return Decision(layer, np.arange(channels)[:, None], np.zeros((channels, 0), dtype=np.int64))


class CostModel:
    """MACs and parameters of the network thinned to given counts, one count for every decision.

    Args:
        decisions: in the order in which counts will be given.
    """

    def __init__(self, structure: Structure, decisions: Sequence[Decision]) -> None:
        self._decisions, self._structure = decisions, structure
        self._of_class = np.full(int(structure.classes.max()) + 1, -1)
        for number, decision in enumerate(decisions):
            self._of_class[decision.classes.ravel()] = number
        self._sampled = {d.layer.layer.node: i for i, d in enumerate(decisions) if d.layer.way == "sample"}
        self._fixed_macs = 0
        self._products: list[tuple[float, Width, Width]] = []
        self._of_node: dict[fx.Node, tuple[Width, Width]] = {}
        layers = {c.node: c for c in structure.contractions}
        for node in structure.traced.call_nodes():
            self._add_node(node, layers.get(node))
        self._inputs = _Widths([inputs for _, inputs, _ in self._products], len(decisions))
        self._outputs = _Widths([outputs for _, _, outputs in self._products], len(decisions))
        self._factors = np.array([factor for factor, _, _ in self._products])
        tensors = self._tensor_widths()
        self._axes = _Widths([width for widths in tensors for width in widths], len(decisions))
        lengths = [len(widths) for widths in tensors]
        self._starts = np.cumsum([0, *lengths])[:-1][np.array(lengths, dtype=int) > 0]
        self._scalars = lengths.count(0)

    def macs(self, counts: Sequence[int]) -> int:
        """Multiply-adds per single input."""
        at = np.asarray(counts, dtype=float)
        return self._fixed_macs + round(float(self._factors @ (self._inputs.at(at) * self._outputs.at(at))))

    def params(self, counts: Sequence[int]) -> int:
        """Number of parameters."""
        widths = self._axes.at(np.asarray(counts, dtype=float))
        return self._scalars + round(float(np.multiply.reduceat(widths, self._starts).sum()))

    @property
    def full_counts(self) -> list[int]:
        """The counts of the dense network."""
        return [decision.size for decision in self._decisions]

    def widths(self, node: fx.Node) -> tuple[Width, Width]:
        """A layer's input and output channels as functions of the counts."""
        return self._of_node[node]

    def is_sampled(self, node: fx.Node) -> bool:
        """Whether a smaller input of this layer is gathered from one that stays whole."""
        return node in self._sampled

    def _add_node(self, node: fx.Node, layer: Contraction | None) -> None:
        macs = node_macs(self._structure, node)
        if layer is None or layer.kind == "embedding":
            self._fixed_macs += macs
            return
        one = Width(1.0, np.zeros(len(self._decisions)))
        outputs = one if layer.out_ids is None else self._width(layer.out_ids)
        inputs = one if layer.in_ids is None or layer.carrier else self._width(layer.in_ids)
        if node in self._sampled:
            inputs = Width(0.0, np.eye(len(self._decisions))[self._sampled[node]])
        self._of_node[node] = (inputs, outputs)
        full = np.array([d.size for d in self._decisions], dtype=float)
        self._products.append((macs / (inputs.at(full) * outputs.at(full)), inputs, outputs))

    def _width(self, ids: Tensor) -> Width:
        """How many of these channels stay."""
        owners = self._of_class[self._structure.class_of(ids)]
        counts = np.bincount(owners[owners >= 0], minlength=len(self._decisions)).astype(float)
        sizes = np.array([d.size for d in self._decisions], dtype=float)
        return Width(float((owners < 0).sum()), np.divide(counts, sizes, out=np.zeros_like(counts), where=sizes > 0))

    def _tensor_widths(self) -> list[list[Width]]:
        structure = self._structure
        axes: dict[str, dict[int, tuple[int, int]]] = {}
        for start, size, name, axis in structure.axes:
            axes.setdefault(name, {})[axis] = (start, size)
        sampled = {d.layer.layer.weight: i for i, d in enumerate(self._decisions) if d.layer.way == "sample"}
        result = []
        for name, tensor in structure.traced.net.named_parameters():
            none = np.zeros(len(self._decisions))
            widths = [Width(float(size), none) for size in tensor.shape]
            for axis, (start, size) in axes.get(name, {}).items():
                owners = self._of_class[structure.classes[start : start + size]]
                counts = np.bincount(owners[owners >= 0], minlength=len(self._decisions)).astype(float)
                sizes = np.array([max(d.size, 1) for d in self._decisions], dtype=float)
                widths[axis] = Width(float((owners < 0).sum()), counts / sizes)
            if name in sampled:
                widths[1] = Width(0.0, np.eye(len(self._decisions))[sampled[name]])
            result.append(widths)
        return result
