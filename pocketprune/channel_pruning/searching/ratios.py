"""The search of preserve ratios from Python: the best network on a budget within a few minutes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.measuring import PruningWarning
from pocketprune.channel_pruning.options import Hooks, Progress, PruningOptions
from pocketprune.channel_pruning.pruning import prune_channels
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.scoring import TaskInputs
from pocketprune.channel_pruning.tasks import Task
from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.deploy.latency import measure_latency
from pocketprune.graph.tracing import batch_of
from pocketprune.search import Budget, Problem, Rollout, Score, SearchSettings, Values, search
from pocketprune.search.finalists import decide
from pocketprune.structure.batches import at_batch
from pocketprune.structure.channel_groups import Structure, analyse

ROUNDS, REPEATS = 5, 3  # of timing a network
NOISE = 0.02  # share of the latency by which two timings of one network differ


@dataclass(frozen=True)
class FoundRatios:
    """The result of a search of preserve ratios.

    Attributes:
        ratios: one preserve ratio for each layer of `list_layers`; a target for `prune_channels`.
        score: of the network pruned to them, on the held-out images.
        share: its cost as a share of the dense network's.
        history: every network that was scored, with those in which a single layer was cut.
        finalists: ratios and score of the networks that were pruned at the end to choose among them.
        measured: under a latency budget, the latency of the network pruned to them as a share of the dense one's.
    """

    ratios: list[float]
    score: Score
    share: float
    history: tuple[Rollout, ...] = field(repr=False)
    finalists: tuple[tuple[list[float], Score], ...] = field(repr=False)
    measured: float | None = None


def search_ratios(
    net: nn.Module | Structure,
    batches: Sequence[ExampleInputs],
    budget: float | Budget,
    held_out: Iterable[Tensor | tuple[Tensor, Tensor]] | Callable[[nn.Module], float] | None = None,
    *,
    task: Task | None = None,
    method: str = "dp",
    options: PruningOptions | None = None,
    settings: SearchSettings | None = None,
    progress: Progress | None = None,
) -> FoundRatios:
    """Search for the preserve ratios whose pruned network is best on a budget, without training.

    Roll-outs are scored with weights that are refitted layer by layer on the dense network's features. The best few
    networks, and one with a single ratio, are then pruned by `prune_channels`. The best of these is returned.

    Args:
        net: the dense network, or what `analyse` returned for it. It stays as it is.
        batches: batches of training inputs, for the moments: tensors, tuples of arguments or dicts of keyword
            arguments.
        budget: share of the dense network's MACs to keep, in (0, 1], or a `Budget` of another kind.
        held_out: batches of images, or of (images, labels), that are not among `batches`. Networks are compared by the
            divergence from the dense network's predictions, unless `settings` ask for a reward that takes labels. It
            may also be a function that returns a number for a network, where higher is better. With a task: batches of
            inputs alone, by default a fifth of those of `batches`, which then take no part in the moments.
        task: what the network is for: networks are compared by its metric, or if it has none by its divergence from
            the dense network. None stands for a classifier.
        method: one of `pocketprune.search.SEARCHES`.
        options: as for `prune_channels`.
        settings: those of the search.
        progress: called with (text, done, total).

    Returns:
        The ratios, their score, and the history of the search.

    Raises:
        UserError: a budget out of reach, too few held-out images, or what `prune_channels` refuses.
    """
    options = options or PruningOptions()
    budget = budget if isinstance(budget, Budget) else Budget("macs", budget)
    if not len(batches):
        raise UserError("empty; at least one batch of images is needed", argument="batches")
    calibration, judged = _shared_out(batches, held_out, task)
    settings = settings or SearchSettings(reward_policy=_reward(judged))
    structure = (
        net if isinstance(net, Structure) else analyse(net, at_batch(batches[0], 2), attention=options.attention)
    )
    latency = None
    if budget.kind == "latency":
        latency = LatencyCost(None, batch=batch_of(batches[0]), device=device_of(structure.traced.net))
    environment = PruningEnvironment(
        structure, calibration, judged, budget=budget.kind, options=options, latency=latency, progress=progress
    )
    problem = Problem(environment, budget)
    found = search(environment, budget, method=method, settings=settings, seed=options.seed)

    def score(values: Values) -> Score:
        ratios = environment.ratios(values)
        whole = replace(options, group_size=None)
        pruned = prune_channels(structure, batches, ratios, options=whole, hooks=Hooks(progress=progress))
        if latency is not None:
            measured[values] = latency_share(pruned.net, structure.traced.net, batches[0])
        return environment.judge(pruned.net.eval())

    measured: dict[Values, float] = {}
    ranked, scored = decide(problem, found, score, settings)
    chosen = ranked[0]
    if measured:
        chosen = on_time(ranked, measured, budget.share)
        _warn_if_late(measured[chosen], budget.share)
    finalists = tuple((environment.ratios(values), each) for values, each in scored)
    return FoundRatios(
        environment.ratios(chosen),
        dict(scored)[chosen],
        problem.cost(chosen) / problem.full_cost,
        found.history,
        finalists,
        measured.get(chosen),
    )


def latency_share(net: nn.Module, dense: nn.Module, inputs: ExampleInputs) -> float:
    """Return a network's measured latency as a share of the dense one's; the two are timed in turns."""
    times = [[measure_latency(each, inputs, repeats=REPEATS) for each in (net, dense)] for _ in range(ROUNDS)]
    return median(mine for mine, _ in times) / median(whole for _, whole in times)


def on_time(ranked: Sequence[Values], measured: Mapping[Values, float], share: float) -> Values:
    """Return the first of the finalists that meets a latency budget as measured; if none does, the quickest.

    Args:
        ranked: the finalists, the best first.
        measured: their latencies as shares of the dense network's.
        share: the budget.
    """
    quickest = min(measured, key=lambda values: measured[values])
    return next((values for values in ranked if measured[values] <= share + NOISE), quickest)


def _warn_if_late(reached: float, asked: float) -> None:
    if reached > asked + NOISE:
        late = f"{asked:.1%} of the dense network's asked, {reached:.1%} measured"
        warnings.warn(f"the latency budget is not met: {late}", PruningWarning, stacklevel=3)


def _shared_out(batches: Sequence[ExampleInputs], held_out: Any, task: Task | None) -> tuple[Sequence[Any], Any]:
    """Return the inputs for the moments, and what judges networks."""
    if task is None:
        if held_out is None:
            raise UserError("none given; held-out images, a function of a network, or a task is accepted",
                            argument="held_out")  # fmt: skip
        return batches, held_out if callable(held_out) else list(held_out)
    if held_out is not None:
        return batches, TaskInputs(task, list(held_out))
    parts = Calibration(batches)
    return parts.fitted(), TaskInputs(task, parts.held_out())


def _reward(held_out: Any) -> str:
    """Return the reward for the held-out inputs: the metric of a task that has one, else the divergence."""
    has_metric = isinstance(held_out, TaskInputs) and held_out.task.metric is not None
    return "accuracy" if has_metric else "divergence"
