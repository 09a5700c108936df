"""Projection of real numbers onto allowed values that meet the budget, from above and from below.

Scaling all numbers by one factor keeps their proportions, and the cost rises with the factor. A bisection of the factor
therefore brackets the budget. Variables that change at the same factor are then changed one at a time. If only few
values are allowed, this can miss the budget. Then single steps are tried, pairs of steps, and last a bounded exhaustive
search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Values, replaced

BISECTIONS = 60
EXHAUSTIVE_COSTS = 20_000  # cost evaluations that the exhaustive search may spend


def project(problem: Problem, wish: Sequence[float] | np.ndarray) -> Values:
    """Return allowed values near `wish` (real numbers, one per variable) that meet the budget, if any do.

    A wish that is allowed, meets the budget and is not above it is returned unchanged. If no values are found that meet
    the budget, those that miss it least are returned.
    """
    values = problem.snap(wish)
    if problem.fits(values):
        return values
    values = fill(problem, *_bracket(problem, np.maximum(np.asarray(wish, dtype=float), 1e-3)))
    if not problem.fits(values):
        values = _step(problem, values)
    if not problem.meets(values):
        values = _exhaust(problem, values)
    return values


def _bracket(problem: Problem, wish: np.ndarray) -> tuple[Values, Values]:
    """Return neighbouring values on the ray through `wish`: the last ones not above the target, and the next ones."""
    low = float(np.log(min(problem.lowest) / wish.max())) - 1.0
    high = float(np.log(max(problem.highest) / wish.min())) + 1.0
    below, above = problem.snap(wish * np.exp(low)), problem.snap(wish * np.exp(high))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        values = problem.snap(wish * np.exp(middle))
        if problem.cost(values) <= problem.target:
            low, below = middle, values
        else:
            high, above = middle, values
    return below, above


def fill(problem: Problem, below: Values, above: Values) -> Values:
    """Go from `below` towards `above`, one variable at a time, where the rank under the budget improves."""
    values, rank = below, problem.rank(below)
    for index in range(len(below)):
        trial = replaced(values, index, above[index])
        if problem.rank(trial) < rank:
            values, rank = trial, problem.rank(trial)
    return values


def steps(problem: Problem, values: Values, index: int) -> Iterator[Values]:
    """Yield the values with one variable at the next lower and at the next higher allowed value, if any."""
    allowed = problem.variables[index].allowed
    at = allowed.index(values[index])
    for neighbour in (at - 1, at + 1):
        if 0 <= neighbour < len(allowed):
            yield replaced(values, index, allowed[neighbour])


def _step(problem: Problem, values: Values) -> Values:
    """Take the best single step, or pair of steps if the budget is missed, until none is an improvement."""
    while not problem.fits(values):
        singles = [trial for index in problem.free for trial in steps(problem, values, index)]
        best = min(singles, key=problem.rank, default=values)
        if not problem.meets(values) and not problem.meets(best):
            pairs = [
                trial
                for single in singles
                for index in problem.free
                if single[index] == values[index]
                for trial in steps(problem, single, index)
            ]
            best = min([best, *pairs], key=problem.rank)
        if problem.rank(best) >= problem.rank(values):
            break
        values = best
    return values


def _exhaust(problem: Problem, values: Values) -> Values:
    """Search depth-first, from the variable that saves most on, without branches that cannot reach the budget."""

    def weight(index: int) -> float:
        trial = list(problem.highest)
        trial[index] = problem.lowest[index]
        return problem.cost(trial)

    search = _Exhaustive(problem, values, sorted(problem.free, key=weight))
    search.visit(0)
    return search.best


class _Exhaustive:
    """The state of the depth-first search: bounds of every variable, which are equal for the decided ones."""

    def __init__(self, problem: Problem, values: Values, order: list[int]) -> None:
        self.problem, self.values, self.order = problem, values, order
        self.best, self.missing = values, problem.miss(values)
        self.low, self.high = list(problem.lowest), list(problem.highest)
        self.costs_left = EXHAUSTIVE_COSTS

    def visit(self, depth: int) -> bool:
        """Return True once the budget is met or the evaluations are spent."""
        if depth == len(self.order):
            missing = self.problem.miss(self.low)
            if missing < self.missing:
                self.best, self.missing = tuple(self.low), missing
            return self.missing <= self.problem.budget.tolerance
        index = self.order[depth]
        options = sorted(self.problem.variables[index].allowed, key=lambda value: abs(value - self.values[index]))
        for value in options:
            self.low[index] = self.high[index] = value
            if self._hopeful() and self.visit(depth + 1):
                return True
            if self.costs_left <= 0:
                return True
        self.low[index], self.high[index] = self.problem.lowest[index], self.problem.highest[index]
        return False

    def _hopeful(self) -> bool:
        """Return whether a completion of the decided values can be nearer to the budget than the best so far."""
        self.costs_left -= 2
        near = self.missing * self.problem.full_cost
        return (
            self.problem.cost(self.low) < self.problem.target + near
            and self.problem.cost(self.high) > self.problem.target - near
        )
