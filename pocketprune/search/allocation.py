"""`dp`: the budget is allocated to the variables directly, by dynamic programming over their loss curves.

If the variables' expected loss increases add up and the cost is a sum over the variables, the best values solve a
knapsack problem, exactly. The true cost couples neighbours. It is therefore linearised at the current values; the
knapsack is solved within a trust region, and its solution is projected onto the exact budget. This is repeated while
the sum falls. Then exchanges between pairs of variables lower it further. Curves of single variables do not say how
losses add up. Several transformations of them are therefore allocated and scored, and the best network is improved by
exchanges that are scored one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curves, sensitivity_table
from pocketprune.search.exchange import improve_jointly, polish, total
from pocketprune.search.interface import Values, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.random_search import LEAST_SHARE, random_values
from pocketprune.search.sensitivity import threshold_values
from pocketprune.search.settings import SearchSettings
from pocketprune.search.uniform import uniform_values

BINS = 2000  # of the knapsack's capacity
MOST_OPTIONS = 64  # values of one variable among which the knapsack chooses
TRUST_REGIONS = (0.6, 0.3, 0.15, 0.07)  # largest change of a value, as a share of the full one
POWERS = (1.0, 2.0, 0.5)  # of the curves: losses add up, or large ones count more, or less
LEAST_GAIN = 1e-9
RANDOM_STARTS = 4


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Measure the curves unless a table is given, allocate along them, score, and improve the best values."""
    journal.expected = len(problem.free) * len(settings.probes) + len(POWERS) + settings.swaps + 1
    curves = loss_curves(problem, sensitivity_table(problem, settings.probes, journal))
    candidates = [allocate(problem, [curve**power for curve in curves]) for power in POWERS]
    journal.score_all(list(dict.fromkeys(candidates)))
    improve_jointly(problem, journal, settings.swaps, seed)


def allocate(problem: Problem, curves: Sequence[np.ndarray]) -> Values:
    """Return values on the budget with a (nearly) least sum of `curves`, one loss per variable and allowed value."""
    rng = np.random.default_rng(0)
    starts = [uniform_values(problem), threshold_values(problem, list(curves))]
    starts += [random_values(problem, rng, LEAST_SHARE) for _ in range(RANDOM_STARTS)]
    reached = [polish(problem, curves, _descend(problem, curves, start)) for start in starts]
    return min(reached, key=lambda values: (*problem.rank(values)[:2], total(problem, curves, values)))


def _descend(problem: Problem, curves: Sequence[np.ndarray], values: Values) -> Values:
    """Linearise, solve and project repeatedly. Shrink the trust region when the sum of the curves stops falling."""
    loss = total(problem, curves, values)
    for radius in TRUST_REGIONS:
        while True:
            trial = project(problem, _linearised(problem, curves, values, radius))
            gain = loss - total(problem, curves, trial)
            if gain <= LEAST_GAIN or problem.rank(trial)[:2] > problem.rank(values)[:2]:
                break
            values, loss = trial, loss - gain
    return values


def _linearised(problem: Problem, curves: Sequence[np.ndarray], values: Values, radius: float) -> Values:
    """Return the knapsack's solution with every variable's cost taken at the current values of the others."""
    here, spare = problem.cost(values), 0.0
    options, losses, weights = [], [], []
    for index, (variable, value) in enumerate(zip(problem.variables, values, strict=True)):
        near = _options(variable.allowed, value, radius * variable.full)
        costs = np.array([problem.cost(replaced(values, index, variable.allowed[at])) for at in near])
        options.append(near)
        losses.append(curves[index][near])
        weights.append(costs - costs[0])
        spare += here - costs[0]
    chosen = knapsack(losses, weights, max(problem.target - here + spare, 0.0))
    return tuple(
        variable.allowed[at[pick]] for variable, at, pick in zip(problem.variables, options, chosen, strict=True)
    )


def _options(allowed: Values, value: int, reach: float) -> list[int]:
    """Return positions in `allowed` within `reach` of `value`, spread evenly. Its neighbours count as within reach."""
    at = allowed.index(value)
    near = [i for i, other in enumerate(allowed) if abs(other - value) <= reach or abs(i - at) <= 1]
    spread = np.unique(np.linspace(0, len(near) - 1, min(len(near), MOST_OPTIONS)).round().astype(int))
    return sorted({*(near[i] for i in spread), at})


def knapsack(losses: Sequence[np.ndarray], weights: Sequence[np.ndarray], capacity: float) -> list[int]:
    """Pick one option per item so that the sum of `losses` is least and that of `weights` at most `capacity`.

    The weights are not negative, and that of the first option of each item is 0. They are rounded to 1/BINS of the
    capacity; the solution is exact for the rounded ones.
    """
    unit = max(capacity, 1e-9 * max(weight.max() for weight in weights), 1e-300) / BINS
    least, picks = np.zeros(BINS + 1), []
    for loss, weight in zip(losses, weights, strict=True):
        bins = np.minimum(np.round(weight / unit), BINS + 1).astype(int)
        table = np.full((len(loss), BINS + 1), np.inf)
        for option, (added, used) in enumerate(zip(loss, bins, strict=True)):
            table[option, used:] = least[: BINS + 1 - used] + added
        picks.append((table.argmin(axis=0), bins))
        least = table.min(axis=0)
    chosen, room = [], BINS
    for pick, bins in reversed(picks):
        chosen.append(int(pick[room]))
        room -= bins[chosen[-1]]
    return chosen[::-1]
