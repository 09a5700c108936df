"""Environments small enough to solve by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from pocketprune.search import Score, Variable
from pocketprune.search.budget import Problem


def variable(name: str, allowed: Sequence[int]) -> Variable:
    fixed_because = "reads the image" if len(allowed) == 1 else ""
    features = (8, max(allowed), 8, 8, 1, 3, 1000)
    return Variable(name, max(allowed), tuple(allowed), fixed_because, features)


class Chain:
    """Variables in a row. Each costs its price times the values on both sides. The loss adds, per variable,
    its weight times its error curve, and a product of neighbouring errors that no single-layer measurement
    shows."""

    def __init__(
        self,
        variables: Sequence[Variable],
        prices: Sequence[float],
        weights: Sequence[float],
        *,
        decays: Sequence[float] | None = None,
        coupling: float = 0.3,
    ) -> None:
        self.variables = tuple(variables)
        self.prices, self.weights, self.coupling = prices, weights, coupling
        self.decays = decays or [3.0] * len(self.variables)
        self.scored: list[tuple[int, ...]] = []

    def cost(self, values: Sequence[int]) -> float:
        sides = [*values, 8]
        return float(sum(price * a * b for price, (a, b) in zip(self.prices, itertools.pairwise(sides), strict=True)))

    def error_curve(self, index: int) -> np.ndarray:
        share = np.arange(self.variables[index].full + 1) / self.variables[index].full
        return np.expm1(self.decays[index] * (1.0 - share)) / np.expm1(self.decays[index])

    def divergences(self, trials: Sequence[tuple[int, int]]) -> list[float]:
        return [float(self.weights[index] * self.error_curve(index)[value]) for index, value in trials]

    def score(self, values: Sequence[int]) -> Score:
        self.scored.append(tuple(values))
        errors = [self.error_curve(index)[value] for index, value in enumerate(values)]
        loss = sum(weight * error for weight, error in zip(self.weights, errors, strict=True))
        loss += self.coupling * sum(a * b for a, b in itertools.pairwise(errors))
        return Score(float(np.exp(-loss)), float(loss), float(loss))


def three_layers(**options: object) -> Chain:
    """A fixed variable and three free ones of unlike sensitivity: about 4,000 networks."""
    variables = [variable("image", [3]), *(variable(name, range(1, 17)) for name in ("a", "b", "c"))]
    return Chain(variables, prices=[4.0, 1.0, 2.0, 1.0], weights=[0.0, 1.0, 0.15, 0.5], **options)


def deep(seed: int = 0, depth: int = 10) -> Chain:
    rng = np.random.default_rng(seed)
    widths = rng.choice([8, 16, 24, 32], depth)
    return Chain(
        [variable(f"layer{i}", range(1, width + 1)) for i, width in enumerate(widths)],
        prices=rng.uniform(0.5, 2.0, depth),
        weights=rng.uniform(0.02, 0.5, depth),
        decays=list(rng.uniform(1.0, 6.0, depth)),
        coupling=0.05,
    )


def all_values(problem: Problem) -> list[tuple[int, ...]]:
    return list(itertools.product(*(one.allowed for one in problem.variables)))


def brute_force(problem: Problem) -> float:
    """The highest accuracy of all networks on the budget."""
    return max(problem.env.score(values).accuracy for values in all_values(problem) if problem.meets(values))
