"""The search of preserve ratios from Python: the best network on a budget within a few minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from pocketprune.channel_pruning.options import Hooks, Progress, PruningOptions
from pocketprune.channel_pruning.pruning import prune_channels
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.search import Budget, Problem, Rollout, Score, SearchSettings, Values, search
from pocketprune.search.finalists import decide
from pocketprune.structure.channel_groups import Structure, analyse


@dataclass(frozen=True)
class FoundRatios:
    """The result of a search of preserve ratios.

    Attributes:
        ratios: one preserve ratio for each layer of `list_layers`; a target for `prune_channels`.
        score: of the network pruned to them, on the held-out images.
        share: its cost as a share of the dense network's.
        history: every network that was scored, with those in which a single layer was cut.
        finalists: ratios and score of the networks that were pruned at the end to choose among them.
    """

    ratios: list[float]
    score: Score
    share: float
    history: tuple[Rollout, ...] = field(repr=False)
    finalists: tuple[tuple[list[float], Score], ...] = field(repr=False)


def search_ratios(
    net: nn.Module | Structure,
    batches: Sequence[Tensor],
    budget: float | Budget,
    held_out: Iterable[Tensor | tuple[Tensor, Tensor]] | Callable[[nn.Module], float],
    *,
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
        batches: batches of training images (m, C, H, W), for the moments.
        budget: share of the dense network's MACs to keep, in (0, 1], or a `Budget` of another kind.
        held_out: batches of images, or of (images, labels), that are not among `batches`. Networks are compared by the
            divergence from the dense network's predictions, unless `settings` ask for a reward that takes labels. It
            may also be a function that returns a number for a network, where higher is better.
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
    held_out = held_out if callable(held_out) else list(held_out)
    settings = settings or SearchSettings()
    if not len(batches):
        raise UserError("empty; at least one batch of images is needed", argument="batches")
    structure = net if isinstance(net, Structure) else analyse(net, batches[0][:2], attention=options.attention)
    latency = None
    if budget.kind == "latency":
        latency = LatencyCost(None, batch=len(batches[0]), device=device_of(structure.traced.net))
    environment = PruningEnvironment(
        structure, batches, held_out, budget=budget.kind, options=options, latency=latency, progress=progress
    )
    problem = Problem(environment, budget)
    found = search(environment, budget, method=method, settings=settings, seed=options.seed)

    def score(values: Values) -> Score:
        ratios = environment.ratios(values)
        whole = replace(options, group_size=None)
        pruned = prune_channels(structure, batches, ratios, options=whole, hooks=Hooks(progress=progress))
        return environment.judge(pruned.net.eval())

    chosen, scored = decide(problem, found, score, settings)
    finalists = tuple((environment.ratios(values), each) for values, each in scored)
    return FoundRatios(
        environment.ratios(chosen),
        dict(scored)[chosen],
        problem.cost(chosen) / problem.full_cost,
        found.history,
        finalists,
    )
