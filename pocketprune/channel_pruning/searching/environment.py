"""The environment of a search: a trained network, the moments of its layers, and held-out images for its scores.

A roll-out looks up the weights that were refitted for its counts, thins the network with them, and runs the held-out
images through the thinned network. The weights are the best ones on the dense network's features. Unlike those of the
final pruning, they do not correct the errors of earlier layers. To rank networks as that pruning would, the statistics
of the batch norms are first shifted by what the cut has changed on a few calibration images. On a ResNet-20, the rank
correlation between the losses of roll-outs and those after the full pruning is 0.8 with new statistics and 0.1 without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.analysis import analysed
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.searching.choices import Choice, choices_of
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.scoring import TaskInputs, judge_of
from pocketprune.channel_pruning.searching.statistics import collect
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.steps import steps_of
from pocketprune.common.untouched import untouched
from pocketprune.graph.tracing import batch_of
from pocketprune.search.interface import Score, Variable
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import CostModel
from pocketprune.training.batch_norm import apply_shifts, shifts_of
from pocketprune.training.distributed import gather_objects, world_size

CACHE_GB = 1.0  # of refitted weights
NORM_IMAGES = 128  # calibration images that shift the batch norms' statistics

Progress = Callable[[str, int, int], None]


class PruningEnvironment:
    """A network as `search` sees it. See `interface.Environment`.

    Args:
        net: the dense network, or what `analyse` returned for it. It stays as it is.
        calibration: batches of training inputs, for the moments.
        held_out: batches without any calibration image, for the scores, or a function that measures a network, or a
            task with its inputs. See `HeldOut`, `Measure` and `OnTask`.
        budget: "macs" | "params" | "latency", the unit of `cost`.
        options: as for `prune_channels`. With `together`, each process of torch.distributed brings its own share of
            the calibration images and all of the held-out ones.
        latency: gives the milliseconds of counts, for budget="latency".
        progress: called with (text, done, total).

    Raises:
        UserError: a network that cannot be traced, or fewer than 50 held-out images.
    """

    def __init__(
        self,
        net: nn.Module | Structure,
        calibration: Sequence[ExampleInputs],
        held_out: Iterable[Tensor | tuple[Tensor, Tensor]] | Callable[[nn.Module], float] | TaskInputs,
        *,
        budget: str = "macs",
        options: PruningOptions | None = None,
        latency: LatencyCost | None = None,
        progress: Progress | None = None,
    ) -> None:
        options, progress = options or PruningOptions(), progress or (lambda *_: None)
        dense = net.traced.net if isinstance(net, Structure) else net
        if not len(calibration) or not batch_of(calibration[0]):
            raise UserError("empty; at least one batch of images is needed", argument="calibration")
        self._norm_inputs = _for_norms(calibration, options.together)
        progress("tracing", 0, 1)
        with torch.no_grad(), untouched(dense), evaluation_mode(dense):
            self._judge = judge_of(dense, held_out)
            self.structure = analysed(net, calibration[0], options)
            self._shifts = shifts_of(dense, self._norm_inputs, together=False)
            self.choices: list[Choice] = choices_of(self.structure, options)
            self._statistics = collect(self.structure, self.choices, calibration, options, progress)
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
        costs: dict[str, Callable[[Sequence[int]], float] | None]
        costs = {"macs": model.macs, "params": model.params, "latency": latency}
        cost = costs.get(budget)
        if cost is None:
            raise UserError(
                f"{budget!r} given; macs, params or (with a latency table) latency is accepted", argument="budget"
            )
        self._cost = cost

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

    def score(self, counts: Sequence[int]) -> Score:
        """Return the score of the thinned network, after its batch norms' statistics were shifted.

        They stay as they are if a single layer is cut. The layers before it have lost nothing, and new statistics alone
        would change the predictions by more than the cut.
        """
        net = self.thinned(counts)
        if sum(count < layer.full for count, layer in zip(counts, self.variables, strict=True)) > 1:
            apply_shifts(net, self._shifts, self._norm_inputs, _kept_channels(net), together=False)
        return self.judge(net)

    def judge(self, net: nn.Module) -> Score:
        """Return the score of a network in evaluation mode on the held-out images."""
        return self._judge.judge(net)

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
        statistics, choice = self._statistics[index], self.choices[index]
        cut = Cut.nothing(self.structure)
        kept = [units.cpu().numpy() for units in statistics.kept(count)]
        for decision, units in zip(choice.decisions, kept, strict=True):
            cut.removed[np.delete(decision.classes, units, axis=0).ravel()] = True
        if choice.decisions[0].layer.way == "sample":
            cut = replace(cut, samplers={choice.consumers[0].weight_name: kept[0].tolist()})
        for consumer in choice.consumers:
            units = kept[0] if not choice.groups else cut.remaining_units(self.structure, consumer.decision)
            chosen = torch.from_numpy(units).to(consumer.weight_tensor.device)
            tensors, biases = consumer.refitted(chosen, statistics.fits(consumer, chosen))
            cut = replace(cut, tensors={**cut.tensors, **tensors}, biases={**cut.biases, **biases})
        return cut


def _kept_channels(net: nn.Module) -> dict[str, list[int]]:
    """Return name of a batch norm -> the channels that a thinned network has left of it."""
    recipe, ending = steps_of(net)[-1].data, ".running_mean"
    return {name.removesuffix(ending): axes[0] for name, axes in recipe.kept.items() if name.endswith(ending)}


def _for_norms(batches: Sequence[ExampleInputs], together: bool) -> Sequence[ExampleInputs]:
    """Return the calibration inputs that shift the batch norms' statistics.

    Images of one size are one batch; other inputs stay in the batches they come in.
    """
    images = [batch for batch in batches if isinstance(batch, Tensor)]
    if len({batch.shape[1:] for batch in images}) == 1 and len(images) == len(batches):
        return [_first(images, NORM_IMAGES, together)]
    found, count = [], 0
    for batch in batches:
        found.append(batch)
        count += batch_of(batch)
        if count >= NORM_IMAGES:
            break
    return found


def _first(batches: Sequence[Tensor], count: int, together: bool) -> Tensor:
    """Return the first `count` images of the batches; with `together` of all processes', the same in each process."""
    share = count // world_size() if together else count
    found, images = [], 0
    for batch in batches:
        found.append(batch[: share - images])
        images += len(found[-1])
        if images >= share:
            break
    mine = torch.cat(found)
    return torch.cat(gather_objects(mine.cpu())).to(mine.device) if together else mine
