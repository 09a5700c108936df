"""What a pruning is going to do: a frozen plan, made before the network runs on any image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, fx

from pocketprune.channel_pruning.affordable import affordable, is_affordable, left_alone
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.targets import Target, target_counts
from pocketprune.graph.sweep import Route
from pocketprune.numerics.ratios import unit_count
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import decision_of, whole_input
from pocketprune.structure.ignoring import is_named
from pocketprune.structure.layers import PrunableLayer, depthwise_layers, is_reused, layers_of


@dataclass(frozen=True)
class Plan:
    """A pruning before it begins.

    Attributes:
        structure: the analysed dense network.
        layers: its prunable layers, in the order of a ratio list.
        counts: node of each prunable layer -> number of input channels that it keeps.
        options: see `PruningOptions`.
        metric: node -> how much selection weighs the error of each output (n,); see `metric_of`.
    """

    structure: Structure
    layers: tuple[PrunableLayer, ...]
    counts: Mapping[fx.Node, int]
    options: PruningOptions
    metric: Mapping[fx.Node, Tensor] = field(default_factory=dict)

    @classmethod
    def for_target(
        cls,
        structure: Structure,
        target: Target,
        options: PruningOptions,
        metric: Mapping[fx.Node, Tensor] | None = None,
    ) -> Plan:
        """Return the plan that prunes an analysed network to a target.

        Raises:
            UserError: a target that is not accepted; see `target_counts`.
        """
        layers = tuple(affordable(layers_of(structure, options.shared_input, options.layers), options.moments_gb))
        counts = target_counts(structure, layers, target, options.channel_multiple)
        nodes = [layer.layer.node for layer in layers]
        return cls(structure, layers, dict(zip(nodes, counts, strict=True)), options, metric or {})

    @cached_property
    def consumers(self) -> dict[fx.Node, Consumer]:
        """The layers at which to stop: those that lose channels and, with refit="all", all that can be refitted."""
        chosen = [layer for layer in self._to_solve() if is_affordable(layer, self.options.moments_gb)]
        return {layer.layer.node: self._consumer(layer) for layer in chosen}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each layer that is not refitted, because its statistics are too large."""
        limit = self.options.moments_gb
        return tuple(left_alone(layer, limit) for layer in self._to_solve() if not is_affordable(layer, limit))

    def _to_solve(self) -> list[PrunableLayer]:
        return [
            layer
            for layer in layers_of(self.structure, self.options.shared_input, "all")
            if not is_reused(self.structure, layer.layer)
            and not is_named(layer.name, self.structure.ignore)
            and (self.options.refit == "all" or layer.way == "couple" or self.loses(layer))
        ]

    @cached_property
    def depthwise(self) -> dict[fx.Node, Consumer]:
        """The depthwise layers at which to stop: those that can be refitted, with refit="all"."""
        if self.options.refit != "all" or not self.options.depthwise:
            return {}
        consumers = [
            Consumer(self.structure.traced, whole_input(layer))
            for layer in depthwise_layers(self.structure)
            if not is_reused(self.structure, layer.layer) and not is_named(layer.name, self.structure.ignore)
        ]
        return {consumer.node: consumer for consumer in consumers if consumer.bias_place}

    def _consumer(self, layer: PrunableLayer) -> Consumer:
        own = layer.layer.node in self.counts and layer.way == "private"
        decision = decision_of(self.structure, layer) if own else whole_input(layer)
        return Consumer(self.structure.traced, decision, self.metric.get(layer.layer.node))

    @cached_property
    def route(self) -> Route:
        """The order in which the network is swept, and its stops."""
        stops = [*self.consumers, *self.depthwise]
        return Route.through(self.structure.traced, stops, branch_drift=self.options.branch_drift)

    def loses(self, layer: PrunableLayer) -> bool:
        """Return whether a layer loses input channels."""
        return layer.way != "fixed" and self.counts.get(layer.layer.node, layer.channels) < layer.channels

    def unit_count(self, consumer: Consumer) -> int | None:
        """Return the number of units that a consumer selects; None if it keeps what other layers leave of its input."""
        layer = consumer.decision.layer
        if layer.way not in ("private", "sample") or layer.layer.node not in self.counts:
            return None
        size = consumer.decision.size
        count = unit_count(self.counts[layer.layer.node], layer.channels, size)
        return count if count < size else None

    def writes_output(self, consumer: Consumer) -> bool:
        """Return whether a consumer writes the network's whole output."""
        return self.structure.traced.output_node.all_input_nodes == [consumer.node]

    def group_ends(self) -> list[int]:
        """Return the numbers of stops after which the network is tuned. See `group_ends`."""
        listed_layers = {layer.layer.node: layer for layer in self.layers}
        listed = [stop in self.counts for stop in self.route.stops]
        losing = [stop in listed_layers and self.loses(listed_layers[stop]) for stop in self.route.stops]
        return group_ends(listed, losing, self.options.group_size)


def group_ends(listed: Sequence[bool], losing: Sequence[bool], size: int | None) -> list[int]:
    """Return the numbers of stops after which a group of prunable layers is complete and another one follows.

    Args:
        listed: for each stop, whether it is a prunable layer of the list.
        losing: for each stop, whether it loses channels.
        size: prunable layers in a group; None stands for one group of all layers.
    """
    ends, inside = [], 0
    for number in range(len(listed)):
        inside += listed[number]
        if size is not None and inside == size:
            inside = 0
            if any(losing[number + 1 :]):
                ends.append(number + 1)
    return ends
