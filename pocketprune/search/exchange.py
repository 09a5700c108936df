"""Exchanges of channels between two layers at equal cost: on curves, where they are free, and jointly
scored."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from pocketprune.search.budget import Problem, nearest
from pocketprune.search.interface import Counts, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project

TRIED = 64  # exchanges whose exact cost is looked at before the counts are taken for the best
LEAST_GAIN = 1e-9
ATTEMPTS = 20  # draws before an exchange that changes nothing is scored after all
LARGEST_EXCHANGE = 0.15  # of a layer's channels, in a jointly scored exchange


def total(problem: Problem, curves: Sequence[np.ndarray], counts: Counts) -> float:
    """Sum of the layers' curves, each one value per allowed count."""
    return float(
        sum(curve[layer.allowed.index(kept)] for curve, layer, kept in zip(curves, problem.layers, counts, strict=True))
    )


def polish(problem: Problem, curves: Sequence[np.ndarray], counts: Counts) -> Counts:
    """Exchange while the sum of the curves falls and the budget stays met; promising pairs first."""
    value, improved = total(problem, curves, counts), True
    while improved:
        improved = False
        for lowered, other in promising(problem, curves, counts)[:TRIED]:
            trial = raised_to_budget(problem, lowered, other)
            gain = value - total(problem, curves, trial)
            if gain > LEAST_GAIN and (problem.fits(trial) or problem.rank(trial) <= problem.rank(counts)):
                counts, value, improved = trial, value - gain, True
                break
    return counts


def promising(problem: Problem, curves: Sequence[np.ndarray], counts: Counts) -> list[tuple[Counts, int]]:
    """(counts with one layer lowered, layer to raise), by the gain expected if costs were linear, best
    first."""
    here = problem.cost(counts)
    raises = []
    for layer in problem.free:
        raised = stepped(problem, counts, layer, 1)
        if raised != counts:
            gain = total(problem, curves, counts) - total(problem, curves, raised)
            raises.append((layer, gain, max(problem.cost(raised) - here, 1e-12 * problem.dense_cost)))
    pairs = []
    for layer, stride in itertools.product(problem.free, (-1, -2, -4)):
        lowered = stepped(problem, counts, layer, stride)
        if lowered != counts:
            loss = total(problem, curves, lowered) - total(problem, curves, counts)
            saved = here - problem.cost(lowered)
            pairs += [
                (gain * max(saved / price, 1.0) - loss, lowered, other)
                for other, gain, price in raises
                if other != layer
            ]
    pairs.sort(key=lambda pair: -pair[0])
    return [(lowered, other) for expected, lowered, other in pairs if expected > 0.0]


def stepped(problem: Problem, counts: Counts, layer: int, stride: int) -> Counts:
    """`counts` with one layer moved by `stride` allowed counts, as far as there are any."""
    allowed = problem.layers[layer].allowed
    at = min(max(allowed.index(counts[layer]) + stride, 0), len(allowed) - 1)
    return replaced(counts, layer, allowed[at])


def raised_to_budget(problem: Problem, counts: Counts, layer: int) -> Counts:
    """`counts` with one layer raised to the count that suits the budget best."""
    allowed = problem.layers[layer].allowed
    at = allowed.index(counts[layer])

    def with_count(position: int) -> Counts:
        return replaced(counts, layer, allowed[position])

    positions = range(at, len(allowed))
    above = at + bisect_left(positions, True, key=lambda i: problem.cost(with_count(i)) > problem.target)
    near = [with_count(position) for position in (above - 1, above) if position in positions]
    return min(near, key=problem.rank)


def improve_jointly(problem: Problem, journal: Journal, rollouts: int, seed: int) -> None:
    """Random exchanges from the best network so far, each scored; a better one is where the next begins."""
    for step in range(rollouts):
        best = journal.best()
        journal.score(random_exchange(problem, best.counts, np.random.default_rng([seed, step])))
        journal.checkpoint()


def random_exchange(problem: Problem, counts: Counts, rng: np.random.Generator) -> Counts:
    """One layer lowered by a few channels, another raised by what that saves, then projected onto the
    budget."""
    trial = counts
    for _ in range(ATTEMPTS if len(problem.free) > 1 else 0):
        lower, raised = rng.choice(problem.free, size=2, replace=False)
        layer = problem.layers[lower]
        count = nearest(layer.allowed, counts[lower] - max(1.0, rng.uniform(0, LARGEST_EXCHANGE) * layer.channels))
        lowered = replaced(counts, lower, count)
        trial = project(problem, raised_to_budget(problem, lowered, raised))
        if trial != counts:
            break
    return trial
