"""`sensitivity`: every variable is lowered until its own curve reaches a common loss increase (AIMET, FastNAS).

The threshold is bisected on the exact cost of the joint network. Unlike there, the joint network is scored.
"""

from __future__ import annotations

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curves, sensitivity_table
from pocketprune.search.interface import Values
from pocketprune.search.journal import Journal
from pocketprune.search.projection import fill, project
from pocketprune.search.settings import SearchSettings


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Measure the table unless one is given, then score the joint network."""
    journal.expected = len(problem.free) * len(settings.probes) + 2
    table = sensitivity_table(problem, settings.probes, journal)
    journal.score(threshold_values(problem, loss_curves(problem, table)))
    journal.checkpoint()


def threshold_values(problem: Problem, curves: list[np.ndarray]) -> Values:
    """Return values on the budget at which, up to single steps, no variable's curve exceeds a common threshold."""
    thresholds = np.unique(np.concatenate(curves))[::-1]
    first, last = 0, len(thresholds) - 1  # strictest affordable threshold by bisection; cost rises with index
    while first < last:
        middle = (first + last + 1) // 2
        if problem.cost(_values_at(problem, curves, thresholds[middle])) <= problem.target:
            first = middle
        else:
            last = middle - 1
    below = _values_at(problem, curves, thresholds[first])
    above = _values_at(problem, curves, thresholds[min(first + 1, len(thresholds) - 1)])
    return project(problem, fill(problem, below, above))


def _values_at(problem: Problem, curves: list[np.ndarray], threshold: float) -> Values:
    """Return, per variable, the least allowed value whose loss increase is at most `threshold`."""
    pairs = zip(problem.variables, curves, strict=True)
    return tuple(variable.allowed[int(np.argmax(curve <= threshold))] for variable, curve in pairs)
