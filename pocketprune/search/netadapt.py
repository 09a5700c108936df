"""`netadapt`: rounds of a fixed cost decrease, taken from the layers that lose least by it (Yang et al.
2018).

NetAdapt shrinks one layer a round, which takes thousands of scores on a deep network. Here every round scores
each layer's step once and takes the best few together, as few as the roll-outs allow: with enough of them,
one.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts, Rollout, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings

GREATEST_STEP = 0.25  # of what an average layer alone can save


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """From the largest network down to the budget, in as many rounds as `nb_rlouts` pays for; then one joint
    score."""
    rounds = max(1, (settings.nb_rlouts - 1) // len(problem.free))
    counts, largest = problem.highest, problem.cost(problem.highest)
    decrease = max(0.0, largest - problem.target) / rounds
    step = decrease / max(1, math.ceil(decrease / (GREATEST_STEP * _average_saving(problem))))
    journal.expected = rounds * len(problem.free) + 1
    for number in range(1, rounds + 1):
        goal = largest - number * decrease
        while problem.cost(counts) > goal and counts != problem.lowest:
            scored = journal.score_all(_candidates(problem, counts, step), kind="probe")
            counts = _take(problem, counts, scored, goal)
    journal.score(project(problem, counts))
    journal.checkpoint()


def _average_saving(problem: Problem) -> float:
    savings = [
        problem.cost(problem.highest) - problem.cost(replaced(problem.highest, layer, problem.lowest[layer]))
        for layer in problem.free
    ]
    return sum(savings) / len(savings)


def _candidates(problem: Problem, counts: Counts, step: float) -> list[Counts]:
    """Per free layer, the greatest count that saves `step`; where no layer can any more, the least counts."""
    goal = problem.cost(counts) - step
    lowered = [
        _lowered(problem, counts, layer, goal) for layer in problem.free if counts[layer] > problem.lowest[layer]
    ]
    return [trial for trial in lowered if problem.cost(trial) <= goal] or lowered


def _lowered(problem: Problem, counts: Counts, layer: int, goal: float) -> Counts:
    allowed = [count for count in problem.layers[layer].allowed if count < counts[layer]]
    above = bisect_left(allowed, True, key=lambda count: problem.cost(replaced(counts, layer, count)) > goal)
    return replaced(counts, layer, allowed[max(above - 1, 0)])


def _take(problem: Problem, counts: Counts, scored: list[Rollout], goal: float) -> Counts:
    """Apply the steps together, least loss first, until the cost is down to `goal`."""
    for rollout in sorted(scored, key=lambda rollout: (-rollout.reward, rollout.loss)):
        if problem.cost(counts) <= goal:
            break
        counts = tuple(map(min, counts, rollout.counts))
    return counts
