"""The last word on a search: its best few networks, and the uniform one, pruned in earnest and scored.

Roll-outs carry weights refitted layer by layer on the dense network's features; the final pruning refits each layer on
what the layers before it have left, and ranks networks a little differently.
"""

from __future__ import annotations

from collections.abc import Callable

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts, Score, SearchResult
from pocketprune.search.uniform import uniform_counts

FINALISTS = 3  # of the search; the uniform network joins them


def finalists(problem: Problem, found: SearchResult) -> list[Counts]:
    """The result of a search, its next best networks on the budget, and last the uniform one."""
    if found.method == "uniform":
        return [found.counts]
    ranked = sorted(
        (rollout for rollout in found.history if rollout.kind == "rollout" and problem.meets(rollout.counts)),
        key=lambda rollout: (-rollout.reward, rollout.loss),
    )
    best = list(dict.fromkeys([found.counts, *(rollout.counts for rollout in ranked)]))[:FINALISTS]
    return list(dict.fromkeys([*best, uniform_counts(problem)]))


def decide(
    problem: Problem, found: SearchResult, score: Callable[[Counts], Score]
) -> tuple[Counts, list[tuple[Counts, Score]]]:
    """The finalist of highest accuracy (of equal ones, the lowest loss), and all of them with their scores.

    Args:
        score: of the network pruned in earnest to some counts.
    """
    scored = [(counts, score(counts)) for counts in finalists(problem, found)]
    best = max(scored, key=lambda entry: (entry[1].accuracy, -entry[1].loss))
    return best[0], scored
