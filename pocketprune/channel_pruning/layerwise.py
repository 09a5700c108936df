"""The sweep of one pruning: at every layer select channels, refit the weight, go on; at the end thin the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.consumers import Consumer, Positions
from pocketprune.channel_pruning.coupling import couple_groups
from pocketprune.channel_pruning.finishing import expanded, group_ends, result_of, thinned
from pocketprune.channel_pruning.outcome import LayerResult, PruneResult
from pocketprune.channel_pruning.pruning_state import identity_of, load_state, state_of
from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.sweep import PrunedTensors, Sweep
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.selection import METHODS, select
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import Decision, decision_of, whole_input
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of

__all__ = ["LayerResult", "PruneResult", "PruningRun", "Settings", "check_settings"]

Progress = Callable[[str, int, int], None]
Tune = Callable[[nn.Module, int], None]
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""Strengths of the pull towards the old weight that are tried, relative to the mean diagonal of the moments."""


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
    group_size: int | None = None


def check_settings(settings: Settings) -> None:
    """Raise UserError for a setting that is not accepted."""
    choices = {"selection": METHODS, "refit": ("all", "pruned")}
    for name, accepted in choices.items():
        value = getattr(settings, name)
        if value not in accepted:
            raise UserError(f"{name}: '{value}' given{nearest(value, accepted)}")
    for name, least, words in (
        ("points_per_layer", 0, "0 (all)"),
        ("channel_multiple", 1, "1"),
        ("seed", 0, "0"),
        ("group_size", 1, "1"),
    ):
        value = getattr(settings, name)
        if value is not None and not (hasattr(value, "__index__") and value >= least):
            raise UserError(f"{name}: {value} given; {words} or more is accepted, a whole number")
    if not (isinstance(settings.cache_gb, (int, float)) and settings.cache_gb >= 0):
        raise UserError(f"cache_gb: {settings.cache_gb} given; 0 or more is accepted")


class PruningRun:
    """The sweep of one pruning: select, refit, go on; then thin.

    With `settings.group_size` and `tune`, the network as pruned so far is thinned, tuned and expanded again after so
    many prunable layers, and a new sweep goes on from there: what comes before its next layer is as tuned, what comes
    after as in the dense network, whose outputs stay the targets.

    Args:
        batches: this process's calibration inputs.
        rank, world: this process's number and how many prune together; all decide alike, on all their moments.
        state: what `on_state` was given in an earlier life of this run; it is gone on from.
        on_state: called after each layer and each tuning with all that decides the rest of the run.
    """

    def __init__(
        self,
        structure: Structure,
        layers: list[PrunableLayer],
        counts: Sequence[int],
        settings: Settings,
        batches: Sequence[Any],
        progress: Progress | None = None,
        on_layer: Callable[[LayerResult], None] | None = None,
        *,
        tune: Tune | None = None,
        rank: int = 0,
        world: int = 1,
        state: Mapping[str, Any] | None = None,
        on_state: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.structure, self.layers, self.settings, self.tune = structure, layers, settings, tune
        self.counts = {layer.layer.node: count for layer, count in zip(layers, counts, strict=True)}
        self.progress, self.on_layer = progress or (lambda *_: None), on_layer or (lambda _: None)
        self.on_state = on_state
        self.device = next((t.device for t in structure.traced.named_tensors().values()), torch.device("cpu"))
        self.calibration = Calibration(batches, rank=rank, world=world)
        self.draw = Positions(settings.points_per_layer, settings.seed + rank, self.device)
        self.generator = torch.Generator().manual_seed(settings.seed)  # of selections: the same in every process
        self.pruned = PrunedTensors()
        self.removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
        self.samplers: dict[str, list[int]] = {}
        self.results: dict[Any, LayerResult] = {}
        self.done = self.tuned = 0
        self.resumed = state is not None
        self.identity = identity_of(self) if self.resumed or on_state is not None else {}
        if state is not None:
            load_state(self, state)

    def prune(self) -> PruneResult:
        """Run the sweep, group by group, and thin the network."""
        consumers = self._consumers()
        if not self.resumed:
            self.removed |= couple_groups(
                self.structure, self.layers, self.counts, self.calibration, self.settings, self.draw, self.progress
            )
            self._tell_state()
        sweep = self._sweep(consumers)
        losing = [self._loses(consumers[stop].decision.layer) for stop in sweep.stops]
        listed = [stop in self.counts for stop in sweep.stops]
        ends = group_ends(listed, losing, self.settings.group_size if self.tune else None)
        for end in ends[self.tuned :]:
            self._prune_until(end, consumers)
            self._tune_group(sweep.names_before(end))
        self._prune_until(len(sweep.stops), consumers)
        self.progress("thinning", len(consumers), len(consumers))
        return result_of(self)

    def _sweep(self, consumers: Mapping[Any, Consumer]) -> Sweep:
        return Sweep(
            self.structure.traced,
            list(consumers),
            self.calibration.batches,
            cache_gb=self.settings.cache_gb,
            branch_drift=self.settings.branch_drift,
            pruned=self.pruned,
        )

    def _prune_until(self, end: int, consumers: Mapping[Any, Consumer]) -> None:
        """Decide the layers up to stop `end`; a fresh sweep first advances to where the run stands."""
        if self.done >= end:
            return
        sweep = self._sweep(consumers)
        for number, stop in enumerate(sweep):
            consumer = consumers[stop]
            if number < self.done:
                self.progress(f"reaching {consumer.decision.layer.name}", number, len(consumers))
                for _ in sweep.rows():
                    pass
                continue
            self.progress(f"pruning {consumer.decision.layer.name}", number, len(consumers))
            self._decide(consumer, *self._moments(consumer, sweep))
            self.done += 1
            self._tell_state()
            if self.done == end:
                return

    def _tune_group(self, names: set[str]) -> None:
        """Tune the thinned network; of what that changed, keep the tensors `names`, in dense shapes."""
        net, recipe = thinned(self)
        with torch.enable_grad():
            self.tune(net, self.tuned)
        expanded(self, net, recipe, names)
        self.tuned += 1
        self._tell_state()

    def _tell_state(self) -> None:
        if self.on_state is not None:
            self.on_state(state_of(self))

    def _consumers(self) -> dict[Any, Consumer]:
        """The layers to stop at: those that lose channels and, with refit="all", all that can be refitted."""
        every = layers_of(self.structure, self.settings.shared_input, "all")
        chosen = [
            layer
            for layer in every
            if not is_reused(self.structure, layer.layer)
            and (self.settings.refit == "all" or layer.way == "couple" or self._loses(layer))
        ]
        listed = {layer.layer.node for layer in self.layers}
        return {layer.layer.node: Consumer(self.structure.traced, self._decision(layer, listed)) for layer in chosen}

    def _loses(self, layer: PrunableLayer) -> bool:
        return layer.way != "fixed" and self.counts.get(layer.layer.node, layer.channels) < layer.channels

    def _decision(self, layer: PrunableLayer, listed: set[Any]) -> Decision:
        if layer.layer.node in listed and layer.way == "private":
            return decision_of(self.structure, layer)
        return whole_input(layer)

    def _moments(self, consumer: Consumer, sweep: Sweep) -> tuple[list[Moments], list[Moments]]:
        """Moments of all processes' images: of those to fit on and of those held out."""
        fit, held = consumer.new_moments(), consumer.new_moments()
        for number, (x, target) in enumerate(sweep.rows()):
            cut = self.calibration.cut(number, len(x))
            for moments, part in ((fit, slice(0, cut)), (held, slice(cut, None))):
                if len(x[part]):
                    consumer.update(moments, x[part], target[part], self.settings.points_per_layer, self.draw)
        fit, held = self.calibration.total(fit), self.calibration.total(held)
        consumer.check(fit)
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
            result = LayerResult(
                layer.index,
                layer.name,
                layer.channels,
                len(positions),
                tuple(positions.tolist()),
                len(positions) / layer.channels,
                before,
                after,
                layer.macs,
                layer.macs,
                layer.reason,
            )
            self.results[layer.layer.node] = result
            self.on_layer(result)

    def _select(self, consumer: Consumer, moments: list[Moments]) -> Tensor:
        """The units the consumer keeps: its own choice, or what coupling has left of its input."""
        decision, layer = consumer.decision, consumer.decision.layer
        device = moments[0].A.device
        if layer.way in ("private", "sample") and layer.layer.node in self.counts:
            count = max(1, round(self.counts[layer.layer.node] * decision.size / layer.channels))
            if count < decision.size:
                kept = select(
                    self.settings.selection,
                    moments,
                    consumer.weights,
                    [consumer.block] * consumer.parts,
                    count,
                    output_weights=consumer.output_weights,
                    ridge=RIDGES[0],
                    generator=self.generator,
                )
                return kept.to(device)
        if layer.layer.in_ids is None:
            return torch.arange(decision.size, device=device)
        labels = self.structure.class_of(layer.layer.in_ids)[decision.units[:, 0]]
        return torch.from_numpy(np.flatnonzero(~self.removed[labels])).to(device)

    def _refit(
        self, consumer: Consumer, fit: list[Moments], held: list[Moments], both: list[Moments], kept: Tensor
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


def _merged(fit: Moments, held: Moments) -> Moments:
    """The moments of all images."""
    both = Moments(fit.count, *(t.clone() for t in (fit.mean_x, fit.mean_y, fit.A, fit.B, fit.sigma)))
    if held is not fit:
        both.merge(held)
    return both
