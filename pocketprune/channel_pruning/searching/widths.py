"""The counts of a network's layers as variables: their cost, their errors, and the weights refitted for every count."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pocketprune.channel_pruning.consumers import Consumer, Fit
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.options import Progress, PruningOptions
from pocketprune.channel_pruning.searching.choices import Choice, choices_of
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.statistics import collect
from pocketprune.channel_pruning.second_order import Change, Numbered, second_order_costs
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.common.modes import evaluation_mode
from pocketprune.search.interface import Score, Variable
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import CostModel

CACHE_GB = 1.0  # of refitted weights


class Widths:
    """The counts of a network's layers, with moments that were collected on the dense network.

    Args:
        structure: the analysed dense network, in evaluation mode.
        calibration: batches of inputs, for the moments.
        priced: batches of inputs on which `divergences` prices counts, best none of the calibration's.
        gather: returns the values of all processes that have priced images of their own.
        budget: "macs" | "params" | "latency", the unit of `cost`.
        options: as for `prune_channels`.
        latency: gives the milliseconds of counts, for budget="latency".
        progress: called with (text, done, total).
        metric: as for `Plan`.
    """

    def __init__(
        self,
        structure: Structure,
        calibration: Sequence[ExampleInputs],
        *,
        priced: Sequence[Numbered],
        gather: Callable[[Any], list[Any]],
        budget: str,
        options: PruningOptions,
        latency: LatencyCost | None,
        progress: Progress,
        metric: Mapping[fx.Node, Tensor],
    ) -> None:
        self.structure, self._seed = structure, options.seed
        self._priced, self._gather = priced, gather
        self.choices: list[Choice] = choices_of(structure, options, metric)
        self._statistics = collect(structure, self.choices, calibration, options, progress)
        self.variables: Sequence[Variable] = tuple(choice.layer for choice in self.choices)
        self._curves = {index: statistics.error_curve() for index, statistics in self._statistics.items()}
        self._forms: dict[tuple[int, ...], str] = {}  # proved once for these layers: a roll-out is only a score
        self._cuts: OrderedDict[tuple[int, int], Cut] = OrderedDict()
        self._set_costs(budget, latency)

    def _set_costs(self, budget: str, latency: LatencyCost | None) -> None:
        self._decided = [(index, d) for index in self._statistics for d in self.choices[index].decisions]
        model = CostModel(self.structure, [decision for _, decision in self._decided])
        self._units = {
            index: {count: self.choices[index].units(count) for count in self.variables[index].allowed}
            | {self.variables[index].full: tuple(d.size for d in self.choices[index].decisions)}
            for index in self._statistics
        }
        if latency is not None:
            half = [min(layer.allowed, key=lambda kept: abs(2 * kept - layer.full)) for layer in self.variables]
            latency.prepare(self.structure, model, self._units_of(half), lambda: self.thinned(half))
            self.choices = [self._quicker(choice, latency) for choice in self.choices]
            self.variables = tuple(choice.layer for choice in self.choices)
        costs: dict[str, Callable[[Sequence[int]], float] | None]
        costs = {"macs": model.macs, "params": model.params, "latency": latency}
        cost = costs.get(budget)
        if cost is None:
            raise UserError(
                f"{budget!r} given; macs, params or (with a latency table) latency is accepted", argument="budget"
            )
        self._cost = cost

    def _quicker(self, choice: Choice, latency: LatencyCost) -> Choice:
        """Return the choice without counts at which a sampler costs more time than it saves."""
        layer = choice.layer
        if not choice.decisions or choice.decisions[0].layer.way != "sample":
            return choice
        node = choice.consumers[0].node
        allowed = tuple(count for count in layer.allowed if count == layer.full or latency.saves(node, count))
        because = layer.fixed_because or ("a sampler costs the time that it saves" if len(allowed) < 2 else "")
        return replace(choice, layer=replace(layer, allowed=allowed or (layer.full,), fixed_because=because))

    def cost(self, counts: Sequence[int]) -> float:
        """Return the exact MACs or parameters, or the estimated milliseconds, of the thinned network."""
        return float(self._cost(self._units_of(counts)))

    def _units_of(self, counts: Sequence[int]) -> list[int]:
        """Return the number of units of every decision, as the cost model takes them."""
        return [unit for index, units in self._units.items() for unit in units[counts[index]]]

    def error_curve(self, layer: int) -> np.ndarray:
        """Return the relative error (channels + 1,) of one layer's refitted output on the dense network's input."""
        return self._curves.get(layer, np.zeros(self.variables[layer].full + 1))

    def ratios(self, counts: Sequence[int]) -> list[float]:
        """Return the preserve ratios, one per layer of the ratio list, that give these counts."""
        found = {
            entry.index: kept / entry.channels
            for choice, count in zip(self.choices, counts, strict=True)
            for entry, kept in zip(choice.entries, choice.entry_counts(count), strict=True)
        }
        return [found[index] for index in sorted(found)]

    @torch.no_grad()
    def thinned(self, counts: Sequence[int]) -> nn.Module:
        """Return the network thinned to these counts, with its refitted weights, in evaluation mode."""
        cut = Cut.nothing(self.structure)
        layers = [index for index in self._statistics if counts[index] < self.variables[index].full]
        for index in layers:
            cut = cut.merged(self._cut(index, counts[index]))
        with evaluation_mode(self.structure.traced.net):
            net, recipe = cut.thinned(self.structure, form=self._forms.get(tuple(layers), ""))
        self._forms[tuple(layers)] = recipe.form
        return net.eval()

    def divergences(self, trials: Sequence[tuple[int, int]]) -> list[float]:
        """Return the divergence from the dense network that each (index, count) alone causes, to second order."""
        cuts = [self.changes(index, count) for index, count in trials]
        found = self._gather(second_order_costs(self.structure.traced, cuts, self._priced, seed=self._seed))
        costs: Tensor = sum(total for total, _ in found) / sum(count for _, count in found)
        return [float(cost) for cost in costs]

    def score(self, counts: Sequence[int]) -> Score:
        """Raise NotImplementedError: without held-out images no network is scored."""
        raise NotImplementedError

    def changes(self, index: int, count: int) -> list[Change]:
        """Return what one layer's count changes in the layers that it refits."""
        removal = self._removal(index, count)
        return [
            Change(consumer.node, *consumer.change(kept, fits))
            for consumer, kept, fits in self._refits(index, count, removal)
        ]

    def _cut(self, index: int, count: int) -> Cut:
        """Return the cut for one layer's count. The most recent ones are kept."""
        key = (index, count)
        if key not in self._cuts:
            self._cuts[key] = self._compute_cut(index, count)
            while sum(cut.bytes for cut in self._cuts.values()) > CACHE_GB * 2**30 and len(self._cuts) > 1:
                self._cuts.popitem(last=False)
        self._cuts.move_to_end(key)
        return self._cuts[key]

    def _compute_cut(self, index: int, count: int) -> Cut:
        cut = self._removal(index, count)
        for consumer, kept, fits in self._refits(index, count, cut):
            tensors, biases = consumer.refitted(kept, fits)
            cut = replace(cut, tensors={**cut.tensors, **tensors}, biases={**cut.biases, **biases})
        return cut

    def _removal(self, index: int, count: int) -> Cut:
        """Return the cut for one layer's count, without refitted weights."""
        choice, cut = self.choices[index], Cut.nothing(self.structure)
        kept = [units.cpu().numpy() for units in self._statistics[index].kept(count)]
        for decision, units in zip(choice.decisions, kept, strict=True):
            cut.removed[np.delete(decision.classes, units, axis=0).ravel()] = True
        if choice.decisions[0].layer.way == "sample":
            cut = replace(cut, samplers={choice.consumers[0].weight_name: kept[0].tolist()})
        return cut

    def _refits(self, index: int, count: int, removal: Cut) -> Iterator[tuple[Consumer, Tensor, list[Fit]]]:
        """Yield the layers whose weights depend on one layer's count, the units they keep, and their refits."""
        statistics, choice = self._statistics[index], self.choices[index]
        for consumer in choice.consumers:
            if choice.groups:
                remaining = torch.from_numpy(removal.remaining_units(self.structure, consumer.decision))
                kept = remaining.to(consumer.weight_tensor.device)
            else:
                kept = statistics.kept(count)[0].to(consumer.weight_tensor.device)
            yield consumer, kept, statistics.fits(consumer, kept)
