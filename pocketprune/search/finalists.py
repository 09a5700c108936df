"""The final choice of a search: its best few values and the uniform ones, compared by a slower and truer score.

The score of a roll-out has to be quick. It ranks networks a little differently from the full pruning in the end.
"""

from __future__ import annotations

from collections.abc import Callable

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Score, SearchResult, Values
from pocketprune.search.reward import REWARDS
from pocketprune.search.settings import SearchSettings
from pocketprune.search.uniform import uniform_values

FINALISTS = 3  # of the search; the uniform values join them


def finalists(problem: Problem, found: SearchResult) -> list[Values]:
    """Return the result of a search, its next best values on the budget, and then the uniform ones."""
    if found.method == "uniform":
        return [found.values]
    ranked = sorted(
        (rollout for rollout in found.history if rollout.kind == "rollout" and problem.meets(rollout.values)),
        key=lambda rollout: (-rollout.reward, rollout.loss),
    )
    best = list(dict.fromkeys([found.values, *(rollout.values for rollout in ranked)]))[:FINALISTS]
    return list(dict.fromkeys([*best, uniform_values(problem)]))


def decide(
    problem: Problem, found: SearchResult, score: Callable[[Values], Score], settings: SearchSettings
) -> tuple[list[Values], list[tuple[Values, Score]]]:
    """Return the finalists by falling reward, and all of them with their scores.

    Args:
        problem: the variables under the budget.
        found: the result of the search.
        score: a function that returns the true score of values.
        settings: those of the search; they name the reward.

    Returns:
        The values, the best first; of equal rewards the lower loss decides. Then (values, score) of all finalists, the
        uniform ones last.
    """
    reward = REWARDS[settings.reward_policy]

    def rank(entry: tuple[Values, Score]) -> tuple[float, float]:
        values, found = entry
        return reward(found, problem.cost(values), problem.budget.kind, settings.noise_tolerance), -found.loss

    scored = [(values, score(values)) for values in finalists(problem, found)]
    return [values for values, _ in sorted(scored, key=rank, reverse=True)], scored
