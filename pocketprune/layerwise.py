"""The sweep of one pruning: at every layer select channels, refit the weight, go on; at the end thin the network."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.consumers import Consumer
from pocketprune.coupling import couple_groups
from pocketprune.errors import UserError
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.selection import METHODS, select
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.cost_model import Decision, decision_of, whole_input
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of
from pocketprune.structure.naming import nearest
from pocketprune.structure.removal import thin
from pocketprune.structure.sweep import PrunedTensors, Sweep
from pocketprune.structure.thinning import recipe_for, thin_tensor

Progress = Callable[[str, int, int], None]
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""Strengths of the pull towards the old weight that are tried, relative to the mean diagonal of the moments."""
HELD_OUT = 5
"""One image in so many is held out of the fit and judges it."""


@dataclass(frozen=True)
class LayerResult:
    """What became of one prunable layer.

    Attributes:
        channels, kept: input channels before and after; kept_index: which.
        error_before, error_after: error of the layer's output relative to its variance on held-out images, with the
            old weight on the kept channels and with the refitted one.
        macs_before, macs_after: multiply-adds per single input, the latter in the thinned network.
        note: why nothing was removed, or what was done instead.
    """

    index: int
    name: str
    channels: int
    kept: int
    kept_index: tuple[int, ...]
    preserve_ratio: float
    error_before: float
    error_after: float
    macs_before: int
    macs_after: int
    note: str


@dataclass
class PruneResult:
    """The pruned network and what was done to it. MACs are per single input; seconds by phase."""

    net: nn.Module
    layers: list[LayerResult]
    macs: int
    dense_macs: int
    params: int
    dense_params: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How `prune_channels` selects, samples and refits; see there."""

    selection: str = "lasso"
    shared_input: str = "sample"
    points_per_layer: int = 10
    channel_multiple: int = 1
    cache_gb: float = 4.0
    layers: str = "conv2d"
    refit: str = "all"
    branch_drift: bool = True
    seed: int = 0


def check_settings(settings: Settings) -> None:
    """Raise UserError for a setting that is not accepted."""
    choices = {"selection": METHODS, "refit": ("all", "pruned")}
    for name, accepted in choices.items():
        value = getattr(settings, name)
        if value not in accepted:
            raise UserError(f"{name}: '{value}' given{nearest(value, accepted)}")
    if settings.points_per_layer < 0:
        raise UserError(f"points_per_layer: {settings.points_per_layer} given; 0 (all) or more is accepted")


class PruningRun:
    """The sweep of one pruning: select, refit, go on; then thin."""

    def __init__(self, structure: Structure, layers: list[PrunableLayer], counts: Sequence[int], settings: Settings,
                 batches: Sequence[Any], progress: Progress | None = None,
                 on_layer: Callable[[LayerResult], None] | None = None) -> None:
        self.structure, self.layers, self.settings, self.batches = structure, layers, settings, batches
        self.counts = {layer.layer.node: count for layer, count in zip(layers, counts, strict=True)}
        self.progress, self.on_layer = progress or (lambda *_: None), on_layer or (lambda _: None)
        self.pruned = PrunedTensors()
        self.removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
        self.samplers: dict[str, list[int]] = {}
        self.results: dict[Any, LayerResult] = {}
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.device = next((t.device for t in structure.traced.named_tensors().values()), torch.device("cpu"))

    def prune(self) -> PruneResult:
        """Run the sweep and thin the network."""
        consumers = self._consumers()
        self.removed |= couple_groups(self.structure, self.layers, self.counts, self.batches, self.settings,
                                      self._draw, self.progress)
        sweep = Sweep(self.structure.traced, [c.layer for c in consumers.values()], self.batches,
                      cache_gb=self.settings.cache_gb, branch_drift=self.settings.branch_drift, pruned=self.pruned)
        for number, layer in enumerate(sweep):
            consumer = consumers[layer.node]
            self.progress(f"pruning {consumer.decision.layer.name}", number, len(consumers))
            self._decide(consumer, *self._moments(consumer, sweep))
        self.progress("thinning", len(consumers), len(consumers))
        return self._finish()

    def _consumers(self) -> dict[Any, Consumer]:
        """The layers to stop at: those that lose channels and, with refit="all", all that can be refitted."""
        every = layers_of(self.structure, self.settings.shared_input, "all")
        chosen = [layer for layer in every if not is_reused(self.structure, layer.layer) and (
            self.settings.refit == "all" or layer.way == "couple" or self._loses(layer))]
        listed = {layer.layer.node for layer in self.layers}
        return {layer.layer.node: Consumer(self.structure.traced, self._decision(layer, listed)) for layer in chosen}

    def _loses(self, layer: PrunableLayer) -> bool:
        return layer.way != "fixed" and self.counts.get(layer.layer.node, layer.channels) < layer.channels

    def _decision(self, layer: PrunableLayer, listed: set[Any]) -> Decision:
        if layer.layer.node in listed and layer.way == "private":
            return decision_of(self.structure, layer)
        return whole_input(layer)

    def _draw(self, images: int, places: int) -> Tensor:
        """Random output positions, shared by the images of a batch."""
        count = min(self.settings.points_per_layer, places)
        return torch.randperm(places, generator=self.generator)[:count].to(self.device)

    def _moments(self, consumer: Consumer, sweep: Sweep) -> tuple[list[Moments], list[Moments]]:
        """Moments of the images to fit on and of those held out."""
        fit, held, seen = consumer.new_moments(), consumer.new_moments(), 0
        for x, target in sweep.rows():
            cut = len(x) - (seen + len(x)) // HELD_OUT + seen // HELD_OUT
            seen += len(x)
            for moments, part in ((fit, slice(0, cut)), (held, slice(cut, None))):
                if len(x[part]):
                    consumer.update(moments, x[part], target[part], self.settings.points_per_layer, self._draw)
        return consumer.ordered(fit), consumer.ordered(held if held[0].count else fit)

    def _decide(self, consumer: Consumer, fit: list[Moments], held: list[Moments]) -> None:
        """Select the consumer's channels, refit its weight, remember both."""
        decision, layer = consumer.decision, consumer.decision.layer
        both = [_merged(f, h) for f, h in zip(fit, held, strict=True)]
        kept = self._select(consumer, both)
        dropped = np.setdiff1d(np.arange(decision.size), kept.cpu().numpy())
        if layer.way == "private":
            self.removed[decision.classes[dropped].ravel()] = True
        elif layer.way == "sample" and len(dropped):
            self.samplers[layer.layer.weight] = kept.tolist()
        before, after = self._refit(consumer, fit, held, both, kept)
        if layer.layer.node in self.counts:
            positions = decision.channels(kept.cpu().numpy())
            result = LayerResult(layer.index, layer.name, layer.channels, len(positions), tuple(positions.tolist()),
                                 len(positions) / layer.channels, before, after, layer.macs, layer.macs, layer.reason)
            self.results[layer.layer.node] = result
            self.on_layer(result)

    def _select(self, consumer: Consumer, moments: list[Moments]) -> Tensor:
        """The units the consumer keeps: its own choice, or what coupling has left of its input."""
        decision, layer = consumer.decision, consumer.decision.layer
        device = moments[0].A.device
        if layer.way in ("private", "sample") and layer.layer.node in self.counts:
            count = max(1, round(self.counts[layer.layer.node] * decision.size / layer.channels))
            if count < decision.size:
                kept = select(self.settings.selection, moments, consumer.weights, [consumer.block] * consumer.parts,
                              count, output_weights=consumer.output_weights, ridge=RIDGES[0],
                              generator=self.generator)
                return kept.to(device)
        if layer.layer.in_ids is None:
            return torch.arange(decision.size, device=device)
        labels = self.structure.class_of(layer.layer.in_ids)[decision.units[:, 0]]
        return torch.from_numpy(np.flatnonzero(~self.removed[labels])).to(device)

    def _refit(self, consumer: Consumer, fit: list[Moments], held: list[Moments], both: list[Moments], kept: Tensor
               ) -> tuple[float, float]:
        """Refit on the kept channels where that lowers the held-out error; that error with the old and new weight."""
        old = consumer.dense(kept)
        before = consumer.error(held, old, kept)
        if len(kept) == consumer.decision.size and not self.pruned:
            return before, before  # nothing lost yet: the old weight is the answer
        errors = {ridge: consumer.error(held, consumer.refit(fit, kept, ridge), kept) for ridge in RIDGES}
        ridge = min(errors, key=errors.__getitem__)
        if not errors[ridge] < before:
            consumer.install(self.pruned, kept, old)
            return before, before
        consumer.install(self.pruned, kept, consumer.refit(both, kept, ridge))
        return before, errors[ridge]

    def _finish(self) -> PruneResult:
        structure, dense = self.structure, self.structure.traced.net
        kept = {g.name: [i for i, c in enumerate(g.classes) if not self.removed[c]] for g in structure.groups
                if self.removed[list(g.classes)].any()}
        recipe = recipe_for(structure, kept, self.samplers)
        tensors = dict(self.pruned.tensors)
        for layer in structure.contractions:
            if layer.node in self.pruned.biases:
                path = layer.weight.removesuffix(".weight")
                recipe.new_biases.append(path)
                outputs = {a: k for a, k in recipe.kept.get(layer.weight, {}).items() if a == 0}
                tensors[f"{path}.bias"] = thin_tensor(self.pruned.biases[layer.node], outputs)
        net = thin(structure, recipe, tensors=tensors)
        after = analyse(net, structure.traced.example)
        macs = {layer.name: layer.macs for layer in layers_of(after, "keep")}
        results = [self._row(layer, macs) for layer in self.layers]
        return PruneResult(net, results, traced_macs(after.traced), traced_macs(structure.traced),
                           count_params(net), count_params(dense))

    def _row(self, layer: PrunableLayer, macs: dict[str, int]) -> LayerResult:
        """A layer's result with its MACs in the thinned network; layers not visited stayed as they were."""
        everything = tuple(range(layer.channels))
        row = self.results.get(layer.layer.node) or LayerResult(
            layer.index, layer.name, layer.channels, layer.channels, everything, 1.0, 0.0, 0.0, layer.macs, layer.macs,
            layer.reason)
        return replace(row, macs_after=macs.get(layer.name, layer.macs))


def _merged(fit: Moments, held: Moments) -> Moments:
    """The moments of all images."""
    both = Moments(fit.count, *(t.clone() for t in (fit.mean_x, fit.mean_y, fit.A, fit.B, fit.sigma)))
    if held is not fit:
        both.merge(held)
    return both
