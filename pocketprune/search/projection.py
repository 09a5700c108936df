"""From any preserve ratios to allowed counts that meet the budget, from above and from below.

Scaling all ratios by one factor keeps their proportions and moves the cost monotonically, so a bisection
brackets the budget; layers that jump at the same factor are then taken one at a time. Where counts are coarse
(few layers, wide multiples) that can still miss, and single steps, exchanges and at last a bounded exhaustive
search follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts, replaced

BISECTIONS = 60
EXHAUSTIVE_COSTS = 20_000  # cost evaluations that the exhaustive search may spend


def project(problem: Problem, values: Sequence[float] | np.ndarray) -> Counts:
    """Allowed counts near `values` (real-valued counts, one per layer) that meet the budget, if any do.

    Counts that meet it and are not above it come back unchanged. Where none are found, the ones that miss it
    least.
    """
    counts = problem.snap(values)
    if problem.fits(counts):
        return counts
    counts = fill(problem, *_bracket(problem, np.maximum(np.asarray(values, dtype=float), 1e-3)))
    if not problem.fits(counts):
        counts = _step(problem, counts)
    if not problem.meets(counts):
        counts = _exhaust(problem, counts)
    return counts


def _bracket(problem: Problem, values: np.ndarray) -> tuple[Counts, Counts]:
    """Neighbouring counts on the ray through `values`: the last ones not above the target, the first ones
    above."""
    low = float(np.log(min(problem.lowest) / values.max())) - 1.0
    high = float(np.log(max(problem.highest) / values.min())) + 1.0
    below, above = problem.snap(values * np.exp(low)), problem.snap(values * np.exp(high))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        counts = problem.snap(values * np.exp(middle))
        if problem.cost(counts) <= problem.target:
            low, below = middle, counts
        else:
            high, above = middle, counts
    return below, above


def fill(problem: Problem, below: Counts, above: Counts) -> Counts:
    """From `below` towards `above`, one layer at a time, wherever that suits the budget better."""
    counts, rank = below, problem.rank(below)
    for layer in range(len(below)):
        trial = replaced(counts, layer, above[layer])
        if problem.rank(trial) < rank:
            counts, rank = trial, problem.rank(trial)
    return counts


def steps(problem: Problem, counts: Counts, layer: int) -> Iterator[Counts]:
    """The counts with `layer` one allowed count down, then one up, where there is one."""
    allowed = problem.layers[layer].allowed
    at = allowed.index(counts[layer])
    for neighbour in (at - 1, at + 1):
        if 0 <= neighbour < len(allowed):
            yield replaced(counts, layer, allowed[neighbour])


def _step(problem: Problem, counts: Counts) -> Counts:
    """Single steps (in pairs where the budget is missed), the best each time, until none suits the budget
    better."""
    while not problem.fits(counts):
        singles = [trial for layer in problem.free for trial in steps(problem, counts, layer)]
        best = min(singles, key=problem.rank, default=counts)
        if not problem.meets(counts) and not problem.meets(best):
            pairs = [
                trial
                for single in singles
                for layer in problem.free
                if single[layer] == counts[layer]
                for trial in steps(problem, single, layer)
            ]
            best = min([best, *pairs], key=problem.rank)
        if problem.rank(best) >= problem.rank(counts):
            break
        counts = best
    return counts


def _exhaust(problem: Problem, counts: Counts) -> Counts:
    """Depth-first over all counts, the layers that weigh most first, cutting what cannot reach the budget."""

    def weight(layer: int) -> float:
        trial = list(problem.highest)
        trial[layer] = problem.lowest[layer]
        return problem.cost(trial)

    search = _Exhaustive(problem, counts, sorted(problem.free, key=weight))
    search.visit(0)
    return search.best


class _Exhaustive:
    """State of the depth-first search: counts decided so far, the others at their lowest."""

    def __init__(self, problem: Problem, counts: Counts, order: list[int]) -> None:
        self.problem, self.counts, self.order = problem, counts, order
        self.best, self.missing = counts, problem.miss(counts)
        self.low, self.high = list(problem.lowest), list(problem.highest)
        self.costs_left = EXHAUSTIVE_COSTS

    def visit(self, depth: int) -> bool:
        """True once the budget is met or the evaluations are spent."""
        if depth == len(self.order):
            missing = self.problem.miss(self.low)
            if missing < self.missing:
                self.best, self.missing = tuple(self.low), missing
            return self.missing <= self.problem.budget.tolerance
        layer = self.order[depth]
        options = sorted(self.problem.layers[layer].allowed, key=lambda kept: abs(kept - self.counts[layer]))
        for kept in options:
            self.low[layer] = self.high[layer] = kept
            if self._hopeful() and self.visit(depth + 1):
                return True
            if self.costs_left <= 0:
                return True
        self.low[layer], self.high[layer] = self.problem.lowest[layer], self.problem.highest[layer]
        return False

    def _hopeful(self) -> bool:
        """Whether completing the decided counts can still come nearer than the best so far."""
        self.costs_left -= 2
        near = self.missing * self.problem.dense_cost
        return (
            self.problem.cost(self.low) < self.problem.target + near
            and self.problem.cost(self.high) > self.problem.target - near
        )
