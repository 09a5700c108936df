"""What a network costs once channels of some groups are removed, from the counts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pocketprune.structure.channel_groups import Structure, layer_name
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.cost_model import CostModel, Decision
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer

Cost = Callable[[Mapping[str, int]], float]
"""From kept channels by group name to the network's cost; a group that is not named keeps all."""


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
