"""Carrying out a plan: solve layer after layer, tune between groups, resume, and thin at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.coupling import coupled_cut
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.depthwise import depthwise_cut
from pocketprune.channel_pruning.options import Hooks
from pocketprune.channel_pruning.outcome import result_of, row_of
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import PruneResult
from pocketprune.channel_pruning.solver import LayerMoments, Solution, choose, solve, unknowns
from pocketprune.channel_pruning.state import PruningState, as_state, from_state, identity_of
from pocketprune.graph.sweep import Sweep
from pocketprune.structure.masking import masked_readers


class PruningRun:
    """A pruning under way.

    Args:
        plan: what to do.
        calibration: this process's images.
        hooks: what to call meanwhile, and the state from which to resume.
    """

    def __init__(self, plan: Plan, calibration: Calibration, hooks: Hooks | None = None) -> None:
        self.plan, self.calibration, self.hooks = plan, calibration, hooks or Hooks()
        identified = self.hooks.state is not None or self.hooks.on_state is not None
        self._identity = identity_of(plan, calibration) if identified else {}
        if self.hooks.state is None:
            self.state = PruningState.start(plan, calibration.rank)
        else:
            self.state = from_state(plan, self.hooks.state, calibration, self._identity)

    def prune(self) -> PruneResult:
        """Prune the layers, group by group, and thin the network."""
        plan, state = self.plan, self.state
        if self.hooks.state is None:
            state.cut = state.cut.merged(coupled_cut(plan, self.calibration, state.positions, self.hooks.tell))
            self._save()
        if self.hooks.tune is not None:
            for end in plan.group_ends()[state.tuned :]:
                self.prune_until(end)
                self._tune(self.hooks.tune, plan.route.names_before(end))
        self.prune_until(len(plan.route.stops))
        self.hooks.tell("thinning", len(plan.route.stops), len(plan.route.stops))
        return result_of(plan, state)

    def prune_until(self, end: int) -> None:
        """Decide the layers before stop `end`."""
        while self.state.done < end:
            for consumer, sweep in self._undecided(end):
                if consumer.node in self.plan.depthwise:
                    self._refit_depthwise(consumer, sweep)
                    continue
                moments = self._moments(consumer, sweep)
                kept = self._kept(consumer, moments)
                if self._rewinds(consumer, kept):
                    break
                self._solve(consumer, moments, kept)
                sweep.pruned = self.state.cut.replacements(self.plan.structure)
                self._save()

    def _undecided(self, end: int) -> Iterator[tuple[Consumer, Sweep]]:
        """Yield the undecided layers before stop `end`. A new sweep first passes the decided ones."""
        plan, state = self.plan, self.state
        pruned = state.cut.replacements(plan.structure)
        sweep = Sweep(plan.route, self.calibration.batches, cache_gb=plan.options.cache_gb, pruned=pruned)
        total = len(plan.route.stops)
        for number, stop in enumerate(sweep):
            consumer = plan.depthwise.get(stop) or plan.consumers[stop]
            name = consumer.decision.layer.name
            if number < state.done:
                self.hooks.tell(f"reaching {name}", number, total)
                for _ in sweep.rows():
                    pass
                continue
            self.hooks.tell(f"pruning {name}", number, total)
            yield consumer, sweep
            if state.done == end:
                return

    def _rewinds(self, consumer: Consumer, kept: Tensor) -> bool:
        """Go back if removing channels changes the input of an earlier layer or of this one. Return whether it does.

        It does if an operator without a weight (a sum or norm over channels) reads them before this layer. The channels
        are then removed, and the layers from that operator on are solved again with the selected channels.
        """
        name, route = consumer.weight_name, self.plan.route
        removal = removal_of(self.plan, consumer, kept)
        masked = masked_readers(self.plan.structure, removal.removed) if name not in self.state.chosen else None
        places = [route.place(reader) for reader in masked.readers] if masked is not None else []
        if not places or min(places) > route.place(consumer.node):
            return False
        for stop in route.stops[: self.state.done + 1]:
            earlier = self.plan.consumers.get(stop)
            if earlier is None:
                continue
            if route.place(stop) > min(places) and self.plan.unit_count(earlier) is not None:
                units = kept if earlier is consumer else self._kept_before(earlier)
                self.state.chosen[earlier.weight_name] = units.tolist()
        self.state.cut = self.state.cut.merged(removal)
        self.state.done = sum(route.place(stop) < min(places) for stop in route.stops)
        return True

    def _moments(self, consumer: Consumer, sweep: Sweep) -> LayerMoments:
        """Return a layer's moments over all processes' images."""
        fit, held = consumer.new_moments(), consumer.new_moments()
        for number, (x, target) in enumerate(sweep.rows()):
            fitted = self.calibration.fitted_rows(number, len(x))
            for moments, part in ((fit, slice(0, fitted)), (held, slice(fitted, None))):
                if len(x[part]):
                    consumer.update(
                        moments, x[part], target[part], self.plan.options.points_per_layer, self.state.positions
                    )
        fit, held = self.calibration.total(fit), self.calibration.total(held)
        consumer.check(fit)
        return LayerMoments.of(consumer.ordered(fit), consumer.ordered(held))

    def _kept(self, consumer: Consumer, moments: LayerMoments) -> Tensor:
        """Return the units that a layer keeps: its own selection, or what other layers have left of its input."""
        count = self.plan.unit_count(consumer)
        if count is None or consumer.weight_name in self.state.chosen:
            return self._kept_before(consumer)
        return choose(consumer, moments, count, self.plan.options.selection, self.state.choices)

    def _kept_before(self, consumer: Consumer) -> Tensor:
        """Return the units that a layer keeps by earlier selections, its own included."""
        name, device = consumer.weight_name, consumer.weight_tensor.device
        chosen = self.state.chosen.get(name) or self.state.cut.samplers.get(name)
        if chosen is not None:
            return torch.as_tensor(chosen, device=device)
        remaining = self.state.cut.remaining_units(self.plan.structure, consumer.decision)
        return torch.as_tensor(remaining, device=device)

    def _solve(self, consumer: Consumer, moments: LayerMoments, kept: Tensor) -> None:
        """Refit a layer on its kept units. Add it to the cut and to the results."""
        solution = solve(consumer, moments, kept, untouched=not self.state.cut.is_refitted)
        self.state.cut = self.state.cut.merged(cut_of(self.plan, consumer, solution))
        self.state.done += 1
        if self.plan.writes_output(consumer):
            self.state.promised = consumer.error(moments.held, solution.fits or consumer.dense(kept), kept)
        layer = consumer.decision.layer
        if solution.fits is not None and moments.rows < (wanted := unknowns(consumer, kept)):
            self.state.scarce[layer.name] = (moments.rows, wanted)
        if layer.layer.node in self.plan.counts:
            result = row_of(layer, consumer, solution)
            self.state.results[layer.layer.node] = result
            if self.hooks.on_layer is not None:
                self.hooks.on_layer(result)

    def _refit_depthwise(self, consumer: Consumer, sweep: Sweep) -> None:
        """Refit a depthwise layer, unless no layer before it was refitted. Add it to the cut."""
        plan, state = self.plan, self.state
        cut = depthwise_cut(consumer, sweep, self.calibration, plan.structure)
        if state.cut.is_refitted:
            state.cut = state.cut.merged(cut)
            sweep.pruned = state.cut.replacements(plan.structure)
        state.done += 1
        self._save()

    def _tune(self, tune: Callable[[nn.Module, int], None], names: set[str]) -> None:
        """Tune the thinned network. Of the changed tensors, keep those with these names."""
        structure, state = self.plan.structure, self.state
        net, recipe = state.cut.thinned(structure)
        with torch.enable_grad():
            tune(net, state.tuned)
        state.cut = state.cut.following(structure, net, recipe, names)
        state.tuned += 1
        self._save()

    def _save(self) -> None:
        if self.hooks.on_state is not None:
            self.hooks.on_state(as_state(self.plan, self.state, self.calibration, self._identity))


def removal_of(plan: Plan, consumer: Consumer, kept: Tensor) -> Cut:
    """Return the cut that leaves one layer its kept units, without refitting its weight."""
    decision, layer = consumer.decision, consumer.decision.layer
    removed, samplers = Cut.nothing(plan.structure).removed, {}
    units = kept.cpu().numpy()
    dropped = np.setdiff1d(np.arange(decision.size), units)
    if layer.way == "private":
        removed[decision.classes[dropped].ravel()] = True
    elif layer.way == "sample" and len(dropped):
        samplers[consumer.weight_name] = units.tolist()
    return Cut(removed, samplers)


def cut_of(plan: Plan, consumer: Consumer, solution: Solution) -> Cut:
    """Return one layer's solution as a cut."""
    removal = removal_of(plan, consumer, solution.kept)
    if solution.fits is None:
        return removal
    tensors, biases = consumer.refitted(solution.kept, solution.fits)
    return replace(removal, tensors=tensors, biases=biases)
