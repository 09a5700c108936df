"""Environments small enough to solve by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from pocketprune.search import Score, SearchLayer
from pocketprune.search.budget import Problem


def layer(name: str, allowed: Sequence[int], *, channels: int | None = None, macs: int = 1000) -> SearchLayer:
    return SearchLayer(
        name,
        channels or max(allowed),
        tuple(allowed),
        out_channels=8,
        height=8,
        width=8,
        stride=1,
        kernel=3,
        macs=macs,
        fixed_because="reads the image" if len(allowed) == 1 else "",
    )


class Chain:
    """Layers in a row. A layer's cost is its price times the counts on both sides; the loss adds, per layer,
    its weight times its error curve, and a product of neighbouring errors that no single-layer measurement
    shows."""

    def __init__(
        self,
        layers: Sequence[SearchLayer],
        prices: Sequence[float],
        weights: Sequence[float],
        *,
        decays: Sequence[float] | None = None,
        coupling: float = 0.3,
    ) -> None:
        self.layers = tuple(layers)
        self.prices, self.weights, self.coupling = prices, weights, coupling
        self.decays = decays or [3.0] * len(self.layers)
        self.scored: list[tuple[int, ...]] = []

    def cost(self, counts: Sequence[int]) -> float:
        sides = [*counts, 8]
        return float(sum(price * a * b for price, (a, b) in zip(self.prices, itertools.pairwise(sides), strict=True)))

    def error_curve(self, index: int) -> np.ndarray:
        share = np.arange(self.layers[index].channels + 1) / self.layers[index].channels
        return np.expm1(self.decays[index] * (1.0 - share)) / np.expm1(self.decays[index])

    def score(self, counts: Sequence[int]) -> Score:
        self.scored.append(tuple(counts))
        errors = [self.error_curve(index)[kept] for index, kept in enumerate(counts)]
        loss = sum(weight * error for weight, error in zip(self.weights, errors, strict=True))
        loss += self.coupling * sum(a * b for a, b in itertools.pairwise(errors))
        return Score(float(np.exp(-loss)), float(loss), float(loss))


def three_layers(**options: object) -> Chain:
    """A fixed layer that reads the image and three free ones of unlike sensitivity: about 4,000 networks."""
    layers = [layer("image", [3]), *(layer(name, range(1, 17)) for name in ("a", "b", "c"))]
    return Chain(layers, prices=[4.0, 1.0, 2.0, 1.0], weights=[0.0, 1.0, 0.15, 0.5], **options)


def deep(seed: int = 0, depth: int = 10) -> Chain:
    rng = np.random.default_rng(seed)
    widths = rng.choice([8, 16, 24, 32], depth)
    return Chain(
        [layer(f"layer{i}", range(1, width + 1)) for i, width in enumerate(widths)],
        prices=rng.uniform(0.5, 2.0, depth),
        weights=rng.uniform(0.02, 0.5, depth),
        decays=list(rng.uniform(1.0, 6.0, depth)),
        coupling=0.05,
    )


def all_counts(problem: Problem) -> list[tuple[int, ...]]:
    return list(itertools.product(*(layer.allowed for layer in problem.layers)))


def brute_force(problem: Problem) -> float:
    """The highest accuracy of all networks on the budget."""
    return max(problem.env.score(counts).accuracy for counts in all_counts(problem) if problem.meets(counts))
