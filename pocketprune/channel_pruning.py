"""Channel pruning by reconstruction (He, Zhang, Sun 2017) on any traced network.

One sweep: the dense network and the network as pruned so far advance together; at every layer the second moments of
its input (pruned network) and its target (dense network) are accumulated, input channels are selected on them, the
weight is refitted on the channels kept, and the sweep goes on with the refitted layer. What was dropped is removed
from every tensor that touches it at the end.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.consumers import Consumer
from pocketprune.coupling import couple_groups
from pocketprune.errors import UserError
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import refit, relative_error
from pocketprune.numerics.selection import METHODS, select
from pocketprune.planning import planned_counts
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.cost_model import CostModel, Decision, decision_of
from pocketprune.structure.layers import PrunableLayer, is_prunable_kind, is_reused, layers_of
from pocketprune.structure.naming import nearest
from pocketprune.structure.removal import refuse_pruned, thin
from pocketprune.structure.sweep import PrunedTensors, Sweep
from pocketprune.structure.thinning import recipe_for
from pocketprune.structure.tracing import evaluation_mode
from pocketprune.structure.verification import check_groups

Progress = Callable[[str, int, int], None]
RIDGE = 1e-6


@dataclass(frozen=True)
class LayerResult:
    """What became of one prunable layer.

    Attributes:
        channels, kept: input channels before and after; kept_index: which.
        error_before, error_after: error of the layer's output relative to its variance, with the old weight on the
            kept channels and with the refitted one.
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
    refit: str = "all"
    branch_drift: bool = True
    seed: int = 0


def prune_channels(net: nn.Module, calibration_batches: Iterable[Tensor], *, preserve_ratio: float | None = None,
                   ratios: Sequence[float] | None = None, macs: float | None = None, selection: str = "lasso",
                   shared_input: str = "sample", points_per_layer: int = 10, channel_multiple: int = 1,
                   cache_gb: float = 4.0, refit: str = "all", branch_drift: bool = True, seed: int = 0,
                   check: bool = True, progress: Progress | None = None,
                   on_layer: Callable[[LayerResult], None] | None = None) -> PruneResult:
    """Prune a network's channels to a ratio, a list of ratios or a share of its MACs; no labels, no training.

    Exactly one of `preserve_ratio`, `ratios` and `macs` is given.

    Args:
        calibration_batches: inputs of the network, a few hundred to a few thousand images in all.
        preserve_ratio: share of each prunable layer's input channels that stays, in (0, 1].
        ratios: one share per prunable layer, in the order of `list_layers`.
        macs: share of the dense network's MACs to keep, by one common ratio.
        selection: "lasso" | "obs" | "magnitude" | "random".
        shared_input: what happens to inputs that several layers read: "sample" (each layer reads its own subset),
            "couple" (channels are removed for all of them, chosen jointly) or "keep".
        points_per_layer: positions sampled per image and layer; 0 takes all.
        channel_multiple: kept counts are multiples of this.
        cache_gb: GiB of feature maps held in memory between layers; past it they go to disk.
        refit: "all" layers, those with unpruned inputs too (they make up for what earlier layers lost), or "pruned".
        branch_drift: layers before an addition make up for the drift of its other operand.
        check: first permute every channel group and leave alone those that change the output.
        progress: called with (what, done, total). on_layer: called after each prunable layer.

    Raises:
        UserError: ratios out of range or of the wrong number, unknown names, a network that cannot be traced or was
            pruned already.
    """
    settings = Settings(selection, shared_input, points_per_layer, channel_multiple, cache_gb, refit, branch_drift, seed)
    check_settings(settings)
    refuse_pruned(net)
    batches = _on_device(calibration_batches, net)
    start = time.perf_counter()
    structure = analyse(net, batches[0][:2])
    if check:
        check_groups(structure, structure.traced.example)
    layers = layers_of(structure, shared_input)
    counts = planned_counts(structure, layers, preserve_ratio=preserve_ratio, ratios=ratios, macs=macs,
                            multiple=channel_multiple)
    run = PruningRun(structure, layers, counts, settings, batches, progress, on_layer)
    traced = time.perf_counter()
    with torch.no_grad(), evaluation_mode(net):
        result = run.prune()
    result.seconds = {"trace": traced - start, "prune": time.perf_counter() - traced}
    return result


def check_settings(settings: Settings) -> None:
    """Raise UserError for a setting that is not accepted."""
    for name, value, accepted in (("selection", settings.selection, METHODS), ("refit", settings.refit, ("all", "pruned"))):
        if value not in accepted:
            raise UserError(f"{name}: '{value}' given{nearest(value, accepted)}")
    if settings.points_per_layer < 0:
        raise UserError(f"points_per_layer: {settings.points_per_layer} given; 0 (all) or more is accepted")


def _on_device(batches: Iterable[Tensor], net: nn.Module) -> list[Tensor]:
    device = next((t.device for t in net.parameters()), torch.device("cpu"))
    moved = [batch.to(device) for batch in batches]
    if not moved or not len(moved[0]):
        raise UserError("calibration_batches: empty; at least one batch of inputs is needed")
    return moved


class PruningRun:
    """The sweep of one pruning: select, refit, go on; then thin."""

    def __init__(self, structure: Structure, layers: list[PrunableLayer], counts: Sequence[int], settings: Settings,
                 batches: Sequence[Tensor], progress: Progress | None = None,
                 on_layer: Callable[[LayerResult], None] | None = None) -> None:
        self.structure, self.layers, self.settings, self.batches = structure, layers, settings, batches
        self.counts = {layer.layer.node: count for layer, count in zip(layers, counts, strict=True)}
        self.progress, self.on_layer = progress or (lambda *_: None), on_layer or (lambda _: None)
        self.pruned = PrunedTensors()
        self.removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
        self.samplers: dict[str, list[int]] = {}
        self.results: dict[Any, LayerResult] = {}
        self.generator = torch.Generator().manual_seed(settings.seed)

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
            moments = consumer.new_moments()
            for x, target in sweep.rows():
                consumer.update(moments, x, target, self.settings.points_per_layer, self._draw)
            self._decide(consumer, consumer.ordered(moments))
        self.progress("thinning", len(consumers), len(consumers))
        return self._finish()

    def _consumers(self) -> dict[Any, Consumer]:
        """The layers to stop at: those that lose channels and, with refit="all", all that can be refitted."""
        every = layers_of(self.structure, self.settings.shared_input, linear=True)
        chosen = [layer for layer in every if not is_reused(self.structure, layer.layer) and (
            self.settings.refit == "all" or layer.way == "couple" or self._loses(layer))]
        listed = {layer.layer.node for layer in self.layers}
        return {layer.layer.node: Consumer(self.structure.traced, self._decision(layer, listed)) for layer in chosen}

    def _loses(self, layer: PrunableLayer) -> bool:
        return layer.way != "fixed" and self.counts.get(layer.layer.node, layer.channels) < layer.channels

    def _decision(self, layer: PrunableLayer, listed: set[Any]) -> Decision:
        if layer.layer.node in listed and layer.way == "private":
            return decision_of(self.structure, layer)
        return Decision(layer, np.arange(layer.channels)[:, None], np.zeros((layer.channels, 0), dtype=np.int64))

    def _draw(self, images: int, places: int) -> Tensor:
        """Random output positions, shared by the images of a batch."""
        count = min(self.settings.points_per_layer, places)
        return torch.randperm(places, generator=self.generator)[:count].to(self.batches[0].device)

    def _decide(self, consumer: Consumer, moments: Moments) -> None:
        """Select the consumer's channels, refit its weight, remember both."""
        decision, layer = consumer.decision, consumer.decision.layer
        kept = self._select(consumer, moments)
        dropped = np.setdiff1d(np.arange(decision.size), kept.cpu().numpy())
        if layer.way == "private":
            self.removed[decision.classes[dropped].ravel()] = True
        elif layer.way == "sample" and len(dropped):
            self.samplers[layer.layer.weight] = kept.tolist()
        before, after = self._refit(consumer, moments, kept)
        if layer.layer.node in self.counts:
            positions = np.sort(decision.units[kept.cpu().numpy()].ravel())
            result = LayerResult(layer.index, layer.name, layer.channels, len(positions), tuple(positions.tolist()),
                                 len(positions) / layer.channels, before, after, layer.macs, layer.macs, layer.reason)
            self.results[layer.layer.node] = result
            self.on_layer(result)

    def _select(self, consumer: Consumer, moments: Moments) -> Tensor:
        decision, layer = consumer.decision, consumer.decision.layer
        device = moments.A.device
        if layer.way in ("private", "sample") and layer.layer.node in self.counts:
            count = max(1, round(self.counts[layer.layer.node] * decision.size / layer.channels))
            if count < decision.size:
                return select(self.settings.selection, [moments], [consumer.weight], [consumer.block], count,
                              output_weights=[consumer.output_weight], ridge=RIDGE, generator=self.generator).to(device)
        if layer.layer.in_ids is None:
            return torch.arange(decision.size, device=device)
        labels = self.structure.class_of(layer.layer.in_ids)[decision.units[:, 0]]
        return torch.from_numpy(np.flatnonzero(~self.removed[labels])).to(device)

    def _refit(self, consumer: Consumer, moments: Moments, kept: Tensor) -> tuple[float, float]:
        """Refit on the kept channels where that lowers the error; errors with the old and with the new weight."""
        from pocketprune.numerics.reconstruction import expand_blocks
        scale = consumer.output_weight
        old = consumer.weight[expand_blocks(kept, consumer.block)].double()
        bias = consumer.bias.double()
        before = relative_error(moments, old, kept, consumer.block, scale, bias)
        if len(kept) == consumer.decision.size and before < 1e-12:
            return before, before
        W, b = refit(moments, consumer.weight, kept, consumer.block, ridge=RIDGE)
        after = relative_error(moments, W, kept, consumer.block, scale, b)
        if not after < before:
            W, b, after = old, bias, before
        consumer.install(self.pruned, kept, W, b)
        return before, after

    def _finish(self) -> PruneResult:
        structure, dense = self.structure, self.structure.traced.net
        kept = {g.name: [i for i, c in enumerate(g.classes) if not self.removed[c]] for g in structure.groups
                if self.removed[list(g.classes)].any()}
        recipe = recipe_for(structure, kept, self.samplers)
        recipe.new_biases = [c.weight.removesuffix(".weight") for c in structure.contractions
                             if c.node in self.pruned.biases]
        tensors = dict(self.pruned.tensors)
        tensors |= {f"{c.weight.removesuffix('.weight')}.bias": self.pruned.biases[c.node]
                    for c in structure.contractions if c.node in self.pruned.biases}
        net = thin(structure, recipe, tensors=tensors)
        net.train(dense.training)
        after = analyse(net, structure.traced.example)
        macs = {layer.name: layer.macs for layer in layers_of(after, "keep")}
        results = [self._row(layer, macs) for layer in self.layers]
        return PruneResult(net, results, traced_macs(after.traced), traced_macs(structure.traced),
                           count_params(net), count_params(dense))

    def _row(self, layer: PrunableLayer, macs: dict[str, int]) -> LayerResult:
        """A layer's result with its MACs in the thinned network; layers not visited stayed as they were."""
        from dataclasses import replace
        everything = tuple(range(layer.channels))
        row = self.results.get(layer.layer.node) or LayerResult(
            layer.index, layer.name, layer.channels, layer.channels, everything, 1.0, 0.0, 0.0, layer.macs, layer.macs,
            layer.reason)
        return replace(row, macs_after=macs.get(layer.name, layer.macs))
