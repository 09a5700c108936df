"""What a network costs once channels of some groups are removed, from the counts alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pocketprune.graph.nodes import node_shape
from pocketprune.structure.channel_groups import Structure, layer_name
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.cost_model import CostModel, Decision
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer
from pocketprune.structure.propagation import Contraction
from pocketprune.structure.samples import sample_count

Cost = Callable[[Mapping[str, int]], float]
"""From kept channels by group name to the network's cost; a group that is not named keeps all."""

COUNTED = ("conv", "conv_transpose", "linear")
"""Kinds of layers that NNCF counts."""


class GroupCosts:
    """The MACs and parameters of an analysed network without some channels of its groups.

    The products of an attention count as in the whole network.

    Args:
        structure: the network.
        groups: those that may lose channels.

    Attributes:
        model: the cost model of the groups' counts.
        dense_macs, dense_params: of the whole network.
    """

    def __init__(self, structure: Structure, groups: Sequence[ChannelGroup]) -> None:
        self.model = CostModel(structure, [_decision(structure, group) for group in groups])
        self._sizes = {group.name: group.size for group in groups}
        self.dense_macs = traced_macs(structure.traced)
        self.dense_params = count_params(structure.traced.net)

    def macs(self, kept: Mapping[str, int]) -> float:
        """Return the multiply-adds for one input."""
        return self.model.macs(self.counts(kept))

    def params(self, kept: Mapping[str, int]) -> float:
        """Return the number of parameters."""
        return self.model.params(self.counts(kept))

    def counts(self, kept: Mapping[str, int]) -> list[int]:
        """Return the counts as the cost model takes them, one for each group."""
        return [kept.get(name, size) for name, size in self._sizes.items()]


def _decision(structure: Structure, group: ChannelGroup) -> Decision:
    """Return the group as the cost model knows it: one count, and the classes that go with each unit."""
    writer = next(c for c in structure.contractions if layer_name(c) == group.producers[0])
    layer = PrunableLayer(0, group.name, group.size, group.size, (), 0, "", True, "", "couple", writer)
    return Decision(layer, np.arange(group.size)[:, None], np.array(group.classes)[:, None])


class FlopCosts:
    """What convolutions and linear layers cost, as NNCF counts it.

    A multiply-add is two operations. A transposed convolution counts at each of its output positions, where it
    multiplies less often than that. Biases and norms are no parameters, and a layer that runs twice counts twice.

    Args:
        structure: the analysed network.
        groups: those that may lose channels.

    Attributes:
        dense_flops, dense_weights, dense_filters: of the whole network.
    """

    def __init__(self, structure: Structure, groups: Sequence[ChannelGroup]) -> None:
        self._sizes = {group.name: group.size for group in groups}
        model = CostModel(structure, [_decision(structure, group) for group in groups])
        layers = [c for c in structure.contractions if c.kind in COUNTED and c.weight is not None]
        tensors = structure.traced.named_tensors()
        self._widths = [model.widths(layer.node) for layer in layers]
        self._weights = [tensors[layer.weight or ""].numel() for layer in layers]
        self._is_conv = [layer.kind != "linear" for layer in layers]
        self._positions = [_positions(structure, layer) for layer in layers]
        self._full = self._shares({})
        self.dense_flops, self.dense_weights = self.flops({}), self.weights({})
        self.dense_filters = self.filters({})

    def flops(self, kept: Mapping[str, int]) -> float:
        """Return the operations for one input."""
        return 2 * sum(n * at for n, at in zip(self._left(kept), self._positions, strict=True))

    def weights(self, kept: Mapping[str, int]) -> float:
        """Return the number of weights."""
        return sum(self._left(kept))

    def filters(self, kept: Mapping[str, int]) -> float:
        """Return the number of the convolutions' output channels."""
        return sum(outputs for (_, outputs), is_conv in zip(self._shares(kept), self._is_conv, strict=True) if is_conv)

    def _left(self, kept: Mapping[str, int]) -> list[float]:
        """The weights of each layer."""
        now = zip(self._weights, self._shares(kept), self._full, strict=True)
        return [
            weights * inputs * outputs / (all_in * all_out) for weights, (inputs, outputs), (all_in, all_out) in now
        ]

    def _shares(self, kept: Mapping[str, int]) -> list[tuple[float, float]]:
        """The input and output channels of each layer."""
        counts = np.array([kept.get(name, size) for name, size in self._sizes.items()], dtype=float)
        return [(inputs.at(counts), outputs.at(counts)) for inputs, outputs in self._widths]


def _positions(structure: Structure, layer: Contraction) -> float:
    """The positions at which a layer's weight is applied to one input."""
    shape = node_shape(layer.node)
    channels = shape[-1] if layer.kind == "linear" else shape[1]
    return math.prod(shape) / channels / sample_count(structure.traced)
