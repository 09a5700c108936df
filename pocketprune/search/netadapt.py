"""`netadapt`: rounds of a fixed cost decrease, each taken from the variables that lose least (Yang et al. 2018).

NetAdapt lowers one variable a round, which takes thousands of scores on a deep network. Here every round scores each
variable's step once and takes the best few steps together. The more roll-outs are allowed, the fewer these are, down to
one.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Rollout, Values, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings

GREATEST_STEP = 0.25  # of what an average variable alone can save


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Go from the largest network down to the budget, in as many rounds as `nb_rlouts` allows, and score the result."""
    rounds = max(1, (settings.nb_rlouts - 1) // len(problem.free))
    values, largest = problem.highest, problem.cost(problem.highest)
    decrease = max(0.0, largest - problem.target) / rounds
    step = decrease / max(1, math.ceil(decrease / (GREATEST_STEP * _average_saving(problem))))
    journal.expected = rounds * len(problem.free) + 1
    for number in range(1, rounds + 1):
        goal = largest - number * decrease
        while problem.cost(values) > goal and values != problem.lowest:
            scored = journal.score_all(_candidates(problem, values, step), kind="probe")
            values = _take(problem, values, scored, goal)
    journal.score(project(problem, values))
    journal.checkpoint()


def _average_saving(problem: Problem) -> float:
    savings = [
        problem.cost(problem.highest) - problem.cost(replaced(problem.highest, index, problem.lowest[index]))
        for index in problem.free
    ]
    return sum(savings) / len(savings)


def _candidates(problem: Problem, values: Values, step: float) -> list[Values]:
    """Return the values with each variable lowered to save `step`, or as far as possible if none can save that."""
    goal = problem.cost(values) - step
    lowered = [
        _lowered(problem, values, index, goal) for index in problem.free if values[index] > problem.lowest[index]
    ]
    return [trial for trial in lowered if problem.cost(trial) <= goal] or lowered


def _lowered(problem: Problem, values: Values, index: int, goal: float) -> Values:
    allowed = [value for value in problem.variables[index].allowed if value < values[index]]
    above = bisect_left(allowed, True, key=lambda value: problem.cost(replaced(values, index, value)) > goal)
    return replaced(values, index, allowed[max(above - 1, 0)])


def _take(problem: Problem, values: Values, scored: list[Rollout], goal: float) -> Values:
    """Apply the steps together, the least harmful first, until the cost is at most `goal`."""
    for rollout in sorted(scored, key=lambda rollout: (-rollout.reward, rollout.loss)):
        if problem.cost(values) <= goal:
            break
        values = tuple(map(min, values, rollout.values))
    return values
