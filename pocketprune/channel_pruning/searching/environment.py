"""The environment of a search: a trained network, the moments of its layers, and held-out images that judge it.

A roll-out looks up the weights refitted for its counts, thins the network with them, and runs the held-out images
through the thin network; nothing is regressed from rows. The weights are those that are best on the dense network's
features; what the layers before have lost, they do not make up for, as those of the final pruning do. To rank
networks as that pruning would, the batch norms' statistics are first estimated anew on a few calibration images: on
a ResNet-20 the losses' rank correlation with those after pruning in earnest is 0.8 so, and 0.1 without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketprune.channel_pruning.assembly import recipe_and_tensors
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.searching.choices import Choice, choices_of
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.statistics import collect
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.sweep import PrunedTensors
from pocketprune.search.interface import Score
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost_model import CostModel
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.removal import refuse_pruned, thin
from pocketprune.training.batch_norm import reestimate_batch_norm
from pocketprune.training.distributed import gather_objects, world_size

LEAST_HELD_OUT = 50  # images; fewer say nothing about accuracy
CACHE_GB = 1.0  # of refitted weights
NORM_IMAGES = 512  # calibration images that the batch norms' statistics are estimated on
NORM_BATCH = 128

Progress = Callable[[str, int, int], None]


class PruningEnvironment:
    """A network for `search()`; see `interface.Environment`.

    Args:
        net: the dense network, left as it is.
        calibration: batches of training images (m, C, H, W), for the moments.
        held_out: batches (images, labels (m,)) that none of the calibration images is in, for the scores.
        budget: "macs" | "params" | "latency", the unit of `cost`.
        shared_input, points_per_layer, channel_multiple, cache_gb, seed: as for `prune_channels`.
        latency: prices counts in milliseconds, for budget="latency".
        together: each process of torch.distributed brings its own share of the calibration images, and all of the
            held-out ones. To be built in each of them.

    Raises:
        UserError: a network that cannot be traced or was pruned already, a setting that is not accepted, or fewer
            than 50 held-out images.
    """

    def __init__(
        self,
        net: nn.Module,
        calibration: Sequence[Tensor],
        held_out: Iterable[tuple[Tensor, Tensor]],
        *,
        budget: str = "macs",
        shared_input: str = "sample",
        points_per_layer: int = 10,
        channel_multiple: int = 1,
        cache_gb: float = 4.0,
        seed: int = 0,
        latency: LatencyCost | None = None,
        together: bool = False,
        progress: Progress | None = None,
    ) -> None:
        refuse_pruned(net)
        progress = progress or (lambda *_: None)
        self._held_out = _checked(held_out)
        self._expected: list[Tensor] = []  # the dense network's log-probabilities on the held-out images
        if not len(calibration) or not len(calibration[0]):
            raise UserError("calibration: empty; at least one batch of images is needed")
        self._norm_images = _first(calibration, NORM_IMAGES, together).split(NORM_BATCH)
        progress("tracing", 0, 1)
        with torch.no_grad(), evaluation_mode(net):
            self.structure = analyse(net, calibration[0][:2])
            check_groups(self.structure, self.structure.traced.example)
            self._expected = [net(x).float().log_softmax(1) for x, _ in self._held_out]
            self.choices: list[Choice] = choices_of(self.structure, shared_input, channel_multiple)
            self._statistics = collect(
                self.structure,
                self.choices,
                calibration,
                points=points_per_layer,
                cache_gb=cache_gb,
                seed=seed,
                together=together,
                progress=progress,
            )
        self.variables = tuple(choice.layer for choice in self.choices)
        self._curves = {index: statistics.error_curve() for index, statistics in self._statistics.items()}
        self._refits: OrderedDict[tuple[int, int], _Refit] = OrderedDict()
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
        costs = {"macs": model.macs, "params": model.params, "latency": latency}
        if costs.get(budget) is None:
            raise UserError(f"cp_budget: {budget!r} given; macs, params or (with a latency table) latency is accepted")
        self._cost = costs[budget]

    def cost(self, counts: Sequence[int]) -> float:
        """Exact MACs or parameters, or estimated milliseconds, of the thinned network."""
        return float(self._cost(self._units_of(counts)))

    def _units_of(self, counts: Sequence[int]) -> list[int]:
        """The cost model's counts: units of every decision."""
        return [unit for index, units in self._units.items() for unit in units[counts[index]]]

    def error_curve(self, layer: int) -> np.ndarray:
        """(channels + 1,) relative error of one layer's refitted output on the dense network's input."""
        return self._curves.get(layer, np.zeros(self.variables[layer].full + 1))

    def ratios(self, counts: Sequence[int]) -> list[float]:
        """The preserve ratios, one per layer of the ratio list, that give these counts."""
        found = {
            entry.index: kept / entry.channels
            for choice, count in zip(self.choices, counts, strict=True)
            for entry, kept in zip(choice.entries, choice.entry_counts(count), strict=True)
        }
        return [found[index] for index in sorted(found)]

    @torch.no_grad()
    def thinned(self, counts: Sequence[int]) -> nn.Module:
        """The network thinned to these counts, with its refitted weights, in evaluation mode."""
        structure = self.structure
        removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
        samplers: dict[str, list[int]] = {}
        pruned = PrunedTensors()
        for index in self._statistics:
            if counts[index] < self.variables[index].full:
                refit = self._refit(index, counts[index])
                removed |= refit.removed
                samplers |= refit.samplers
                pruned.tensors |= refit.pruned.tensors
                pruned.biases |= refit.pruned.biases
        with evaluation_mode(structure.traced.net):
            recipe, tensors = recipe_and_tensors(structure, removed, samplers, pruned)
            return thin(structure, recipe, tensors=tensors).eval()

    def score(self, counts: Sequence[int]) -> Score:
        """The thinned network on the held-out images, the batch norms' statistics estimated anew.

        They stay where a single layer was cut: the layers before it have lost nothing, and new statistics alone would
        change the predictions by more than the cut.
        """
        net = self.thinned(counts)
        if sum(count < layer.full for count, layer in zip(counts, self.variables, strict=True)) > 1:
            reestimate_batch_norm(net, self._norm_images, together=False)
        return self.judge(net)

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> Score:
        """The score of a network in evaluation mode on the held-out images."""
        correct = loss = divergence = images = 0.0
        for (x, labels), expected in zip(self._held_out, self._expected, strict=True):
            found = net(x).float().log_softmax(1)
            correct += float((found.argmax(1) == labels).sum())
            loss += float(F.nll_loss(found, labels, reduction="sum"))
            divergence += float(F.kl_div(found, expected, reduction="sum", log_target=True))
            images += len(labels)
        return Score(correct / images, loss / images, divergence / images)

    def _refit(self, index: int, count: int) -> _Refit:
        """What one layer's count changes; the most recent are remembered."""
        key = (index, count)
        if key not in self._refits:
            self._refits[key] = self._compute_refit(index, count)
            while sum(r.bytes for r in self._refits.values()) > CACHE_GB * 2**30 and len(self._refits) > 1:
                self._refits.popitem(last=False)
        self._refits.move_to_end(key)
        return self._refits[key]

    def _compute_refit(self, index: int, count: int) -> _Refit:
        statistics, choice = self._statistics[index], self.choices[index]
        found = _Refit(np.zeros(int(self.structure.classes.max()) + 1, dtype=bool))
        kept = [k.cpu().numpy() for k in statistics.kept(count)]
        for decision, units in zip(choice.decisions, kept, strict=True):
            found.removed[np.delete(decision.classes, units, axis=0).ravel()] = True
        if choice.decisions[0].layer.way == "sample":
            found.samplers[choice.decisions[0].layer.layer.weight] = kept[0].tolist()
        for consumer in choice.consumers:
            units = torch.from_numpy(kept[0] if not choice.groups else self._left(consumer, found.removed))
            units = units.to(consumer.weight_tensor.device)
            consumer.install(found.pruned, units, statistics.fits(consumer, units))
        return found

    def _left(self, consumer: Consumer, removed: np.ndarray) -> np.ndarray:
        """The units of a coupled consumer's input that stay."""
        labels = self.structure.class_of(consumer.layer.in_ids)[consumer.decision.units[:, 0]]
        return np.flatnonzero(~removed[labels])


class _Refit:
    """What one layer's count changes in the network."""

    def __init__(self, removed: np.ndarray) -> None:
        self.removed = removed
        self.samplers: dict[str, list[int]] = {}
        self.pruned = PrunedTensors()

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.pruned.tensors.values())


def _first(batches: Sequence[Tensor], count: int, together: bool) -> Tensor:
    """The first `count` images of the batches; of all processes' batches, the same in each of them."""
    share = count // world_size() if together else count
    found, images = [], 0
    for batch in batches:
        found.append(batch[: share - images])
        images += len(found[-1])
        if images >= share:
            break
    mine = torch.cat(found)
    return torch.cat(gather_objects(mine.cpu())).to(mine.device) if together else mine


def _checked(held_out: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    batches = list(held_out)
    images = sum(len(labels) for _, labels in batches)
    if images < LEAST_HELD_OUT:
        raise UserError(
            f"held-out images: {images} given; a search needs {LEAST_HELD_OUT} or more to tell networks apart "
            "(--nb_smpls_val, --cp_nb_smpls_search)"
        )
    return batches
