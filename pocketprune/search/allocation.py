"""`dp`: the budget allocated to the layers directly, by dynamic programming over their loss curves.

Adding the layers' expected loss increases makes the best counts under a *separable* cost a knapsack, solved
exactly. The true cost couples neighbours, so it is linearised at the current counts, solved within a trust
region, projected onto the exact budget, and repeated while the sum falls; exchanges between pairs of layers
polish it. Single-layer curves say nothing of how losses add up, so the sums of several transformed curves are
scored, and the best network is at last improved by exchanges that are scored jointly, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curves, sensitivity_table
from pocketprune.search.exchange import improve_jointly, polish, total
from pocketprune.search.interface import Counts, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.random_search import LEAST_RATIO, random_counts
from pocketprune.search.sensitivity import threshold_counts
from pocketprune.search.settings import SearchSettings
from pocketprune.search.uniform import uniform_counts

BINS = 2000  # of the knapsack's capacity
MOST_OPTIONS = 64  # counts of one layer that the knapsack tells apart
TRUST_REGIONS = (0.6, 0.3, 0.15, 0.07)  # largest change of a count, relative to its layer
POWERS = (1.0, 2.0, 0.5)  # of the curves: losses add up, or large ones count more, or less
LEAST_GAIN = 1e-9
RANDOM_STARTS = 4


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Measure curves (or take the table given), allocate, score, improve."""
    journal.expected = len(problem.free) * len(settings.probes) + len(POWERS) + settings.swaps + 1
    curves = loss_curves(problem, sensitivity_table(problem, settings.probes, journal))
    candidates = [allocate(problem, [curve**power for curve in curves]) for power in POWERS]
    journal.score_all(list(dict.fromkeys(candidates)))
    improve_jointly(problem, journal, settings.swaps, seed)


def allocate(problem: Problem, curves: Sequence[np.ndarray]) -> Counts:
    """Counts on the budget with a (nearly) least sum of `curves`, one value per layer and allowed count."""
    rng = np.random.default_rng(0)
    starts = [uniform_counts(problem), threshold_counts(problem, list(curves))]
    starts += [random_counts(problem, rng, LEAST_RATIO) for _ in range(RANDOM_STARTS)]
    reached = [polish(problem, curves, _descend(problem, curves, start)) for start in starts]
    return min(reached, key=lambda counts: (*problem.rank(counts)[:2], total(problem, curves, counts)))


def _descend(problem: Problem, curves: Sequence[np.ndarray], counts: Counts) -> Counts:
    """Linearise, solve, project; shrink the trust region when the sum of the curves stops falling."""
    value = total(problem, curves, counts)
    for radius in TRUST_REGIONS:
        while True:
            trial = project(problem, _linearised(problem, curves, counts, radius))
            gain = value - total(problem, curves, trial)
            if gain <= LEAST_GAIN or problem.rank(trial)[:2] > problem.rank(counts)[:2]:
                break
            counts, value = trial, value - gain
    return counts


def _linearised(problem: Problem, curves: Sequence[np.ndarray], counts: Counts, radius: float) -> Counts:
    """The knapsack's solution with every layer's cost taken at the current counts of the others."""
    here, options, values, weights, spare = problem.cost(counts), [], [], [], 0.0
    for index, (layer, kept) in enumerate(zip(problem.layers, counts, strict=True)):
        near = _options(layer.allowed, kept, radius * layer.channels)
        costs = np.array([problem.cost(replaced(counts, index, layer.allowed[at])) for at in near])
        options.append(near)
        values.append(curves[index][near])
        weights.append(costs - costs[0])
        spare += here - costs[0]
    chosen = knapsack(values, weights, max(problem.target - here + spare, 0.0))
    return tuple(layer.allowed[at[pick]] for layer, at, pick in zip(problem.layers, options, chosen, strict=True))


def _options(allowed: Counts, kept: int, reach: float) -> list[int]:
    """Positions in `allowed` within `reach` of `kept` (always its neighbours too), thinned out evenly."""
    at = allowed.index(kept)
    near = [i for i, count in enumerate(allowed) if abs(count - kept) <= reach or abs(i - at) <= 1]
    spread = np.unique(np.linspace(0, len(near) - 1, min(len(near), MOST_OPTIONS)).round().astype(int))
    return sorted({*(near[i] for i in spread), at})


def knapsack(values: Sequence[np.ndarray], weights: Sequence[np.ndarray], capacity: float) -> list[int]:
    """Pick one option per item so that the sum of `values` is least and that of `weights` at most `capacity`.

    Weights (>= 0, the first option of each item 0) are rounded to 1/BINS of the capacity: exact up to that.
    """
    unit = max(capacity, 1e-9 * max(weight.max() for weight in weights), 1e-300) / BINS
    least, picks = np.zeros(BINS + 1), []
    for value, weight in zip(values, weights, strict=True):
        bins = np.minimum(np.round(weight / unit), BINS + 1).astype(int)
        table = np.full((len(value), BINS + 1), np.inf)
        for option, (worth, used) in enumerate(zip(value, bins, strict=True)):
            table[option, used:] = least[: BINS + 1 - used] + worth
        picks.append((table.argmin(axis=0), bins))
        least = table.min(axis=0)
    chosen, room = [], BINS
    for pick, bins in reversed(picks):
        chosen.append(int(pick[room]))
        room -= bins[chosen[-1]]
    return chosen[::-1]
