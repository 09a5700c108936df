"""Exchanges between two variables at equal cost: judged by curves, which needs no score, or scored jointly."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from pocketprune.search.budget import Problem, nearest_allowed
from pocketprune.search.interface import Values, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project

TRIED = 64  # exchanges whose exact cost is computed before the values count as the best
LEAST_GAIN = 1e-9
ATTEMPTS = 20  # draws before an exchange that changes nothing is scored after all
LARGEST_EXCHANGE = 0.15  # of a full value, in a jointly scored exchange


def total(problem: Problem, curves: Sequence[np.ndarray], values: Values) -> float:
    """Return the sum of the variables' curves at `values`. A curve has one loss per allowed value."""
    return float(
        sum(
            curve[variable.allowed.index(value)]
            for curve, variable, value in zip(curves, problem.variables, values, strict=True)
        )
    )


def polish(problem: Problem, curves: Sequence[np.ndarray], values: Values) -> Values:
    """Exchange while the sum of the curves falls and the budget stays met. Promising pairs come first."""
    loss, improved = total(problem, curves, values), True
    while improved:
        improved = False
        for lowered, other in promising(problem, curves, values)[:TRIED]:
            trial = raised_to_budget(problem, lowered, other)
            gain = loss - total(problem, curves, trial)
            if gain > LEAST_GAIN and (problem.fits(trial) or problem.rank(trial) <= problem.rank(values)):
                values, loss, improved = trial, loss - gain, True
                break
    return values


def promising(problem: Problem, curves: Sequence[np.ndarray], values: Values) -> list[tuple[Values, int]]:
    """Return pairs (values with one variable lowered, index to raise) that promise a gain, the best first.

    The promised gain is the gain under linear costs.
    """
    here = problem.cost(values)
    raises = []
    for index in problem.free:
        raised = stepped(problem, values, index, 1)
        if raised != values:
            gain = total(problem, curves, values) - total(problem, curves, raised)
            raises.append((index, gain, max(problem.cost(raised) - here, 1e-12 * problem.full_cost)))
    pairs = []
    for index, stride in itertools.product(problem.free, (-1, -2, -4)):
        lowered = stepped(problem, values, index, stride)
        if lowered != values:
            loss = total(problem, curves, lowered) - total(problem, curves, values)
            saved = here - problem.cost(lowered)
            pairs += [
                (gain * max(saved / price, 1.0) - loss, lowered, other)
                for other, gain, price in raises
                if other != index
            ]
    pairs.sort(key=lambda pair: -pair[0])
    return [(lowered, other) for expected, lowered, other in pairs if expected > 0.0]


def stepped(problem: Problem, values: Values, index: int, stride: int) -> Values:
    """Return `values` with one variable moved by `stride` allowed values, or to the last one on that side."""
    allowed = problem.variables[index].allowed
    at = min(max(allowed.index(values[index]) + stride, 0), len(allowed) - 1)
    return replaced(values, index, allowed[at])


def raised_to_budget(problem: Problem, values: Values, index: int) -> Values:
    """Return `values` with one variable raised to the value that ranks first under the budget."""
    allowed = problem.variables[index].allowed
    at = allowed.index(values[index])

    def raised_to(position: int) -> Values:
        return replaced(values, index, allowed[position])

    positions = range(at, len(allowed))
    above = at + bisect_left(positions, True, key=lambda i: problem.cost(raised_to(i)) > problem.target)
    near = [raised_to(position) for position in (above - 1, above) if position in positions]
    return min(near, key=problem.rank)


def improve_jointly(problem: Problem, journal: Journal, rollouts: int, seed: int) -> None:
    """Score random exchanges, each from the best values so far."""
    for step in range(rollouts):
        best = journal.best()
        journal.score(random_exchange(problem, best.values, np.random.default_rng([seed, step])))
        journal.checkpoint()


def random_exchange(problem: Problem, values: Values, rng: np.random.Generator) -> Values:
    """Lower one variable a little, raise another by the cost saved, and project onto the budget."""
    trial = values
    for _ in range(ATTEMPTS if len(problem.free) > 1 else 0):
        lower, raised = rng.choice(problem.free, size=2, replace=False)
        variable = problem.variables[lower]
        wish = values[lower] - max(1.0, rng.uniform(0, LARGEST_EXCHANGE) * variable.full)
        lowered = replaced(values, lower, nearest_allowed(variable.allowed, wish))
        trial = project(problem, raised_to_budget(problem, lowered, raised))
        if trial != values:
            break
    return trial
