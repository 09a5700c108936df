"""`sensitivity`: every layer gives up channels until its own curve reaches one common loss increase (AIMET,
FastNAS).

The threshold is bisected on the exact cost of the joint network; unlike there, the joint network is then
scored.
"""

from __future__ import annotations

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curves, sensitivity_table
from pocketprune.search.interface import Counts
from pocketprune.search.journal import Journal
from pocketprune.search.projection import fill, project
from pocketprune.search.settings import SearchSettings


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Measure the table (or take the one given), then one joint roll-out."""
    journal.expected = len(problem.free) * len(settings.probes) + 2
    table = sensitivity_table(problem, settings.probes, journal)
    journal.score(threshold_counts(problem, loss_curves(problem, table)))
    journal.checkpoint()


def threshold_counts(problem: Problem, curves: list[np.ndarray]) -> Counts:
    """The counts on the budget at which no layer's curve exceeds a common threshold (up to single steps)."""
    thresholds = np.unique(np.concatenate(curves))[::-1]
    first, last = 0, len(thresholds) - 1  # strictest affordable threshold by bisection; cost rises with index
    while first < last:
        middle = (first + last + 1) // 2
        if problem.cost(_counts_at(problem, curves, thresholds[middle])) <= problem.target:
            first = middle
        else:
            last = middle - 1
    below = _counts_at(problem, curves, thresholds[first])
    above = _counts_at(problem, curves, thresholds[min(first + 1, len(thresholds) - 1)])
    return project(problem, fill(problem, below, above))


def _counts_at(problem: Problem, curves: list[np.ndarray], threshold: float) -> Counts:
    """Per layer, the least allowed count whose loss increase is at most `threshold`."""
    return tuple(
        layer.allowed[int(np.argmax(curve <= threshold))] for layer, curve in zip(problem.layers, curves, strict=True)
    )
