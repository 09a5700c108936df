"""A budget on an environment: what is reachable, what meets it, which counts an agent may still choose."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.search.interface import Counts, Environment
from pocketprune.search.settings import one_of

BUDGET_UNITS = {"macs": "MACs", "params": "parameters", "latency": "ms"}


@dataclass(frozen=True)
class Budget:
    """`share` of the dense network's cost, to be met from both sides within `tolerance` (a share as well).

    Of counts that meet it, those not above it by more than `aim` are preferred: a searcher that maximises
    would otherwise sit at the upper edge, and beat others by cost alone. With `ceiling` anything cheaper is
    welcome too (the `flops` reward, which pays for cheapness itself).
    """

    kind: str = "macs"
    share: float = 0.5
    tolerance: float = 0.005
    aim: float = 0.001
    ceiling: bool = False

    def check(self) -> None:
        """Raises UserError for an unknown kind or a share outside (0, 1]."""
        one_of("cp_budget", self.kind, tuple(BUDGET_UNITS))
        if not 0.0 < self.share <= 1.0:
            raise UserError(f"cp_preserve_ratio: {self.share!r} is not accepted; more than 0, at most 1")


@dataclass(frozen=True)
class Profile:
    """What a budget has to play with, shown before any search. Costs are in the unit of the budget."""

    kind: str
    dense: float
    smallest: float
    largest: float
    uniform_half: float
    free: int
    fixed: tuple[tuple[str, str], ...]  # (layer, reason)

    def lines(self) -> list[str]:
        """A few lines for a person."""
        unit = BUDGET_UNITS[self.kind]
        head = [
            f"{name}: {cost:,.6g} {unit} ({cost / self.dense:.1%})"
            for name, cost in (
                ("dense", self.dense),
                ("half of every layer", self.uniform_half),
                ("smallest", self.smallest),
            )
        ]
        return [*head, f"free layers: {self.free}", *(f"fixed: {name}: {why}" for name, why in self.fixed)]


class Problem:
    """An environment under a budget: the arithmetic that every searcher shares.

    `free` are the layers with a choice; `lowest` and `highest` the smallest and largest allowed counts of all
    layers.
    """

    def __init__(self, env: Environment, budget: Budget) -> None:
        budget.check()
        self.env = env
        self.budget = budget
        self.layers = tuple(env.layers)
        self.lowest: Counts = tuple(layer.allowed[0] for layer in self.layers)
        self.highest: Counts = tuple(layer.allowed[-1] for layer in self.layers)
        self.free = tuple(i for i, layer in enumerate(self.layers) if len(layer.allowed) > 1)
        self.channels: Counts = tuple(layer.channels for layer in self.layers)
        self.dense_cost = float(env.cost(self.channels))
        self.target = budget.share * self.dense_cost

    def cost(self, counts: Sequence[int]) -> float:
        return float(self.env.cost(counts))

    def miss(self, counts: Sequence[int]) -> float:
        """Distance from the budget as a share of the dense cost; under a ceiling, cheaper is no distance."""
        return self.miss_of_cost(self.cost(counts))

    def miss_of_cost(self, cost: float) -> float:
        distance = (cost - self.target) / self.dense_cost
        return max(0.0, distance) if self.budget.ceiling else abs(distance)

    def meets(self, counts: Sequence[int]) -> bool:
        return self.miss(counts) <= self.budget.tolerance

    def rank(self, counts: Sequence[int]) -> tuple[bool, bool, float]:
        """Sorts counts by the budget: those that meet it first, of these the ones not above it, then the
        nearest."""
        cost = self.cost(counts)
        miss = self.miss_of_cost(cost)
        above = cost > self.target + self.budget.aim * self.dense_cost
        return (miss > self.budget.tolerance, above, miss)

    def fits(self, counts: Sequence[int]) -> bool:
        """Whether counts meet the budget without being above it."""
        return not any(self.rank(counts)[:2])

    def snap(self, values: Sequence[float] | np.ndarray) -> Counts:
        """Nearest allowed count of every layer; of two equally near, the larger."""
        return tuple(nearest(layer.allowed, float(value)) for layer, value in zip(self.layers, values, strict=True))

    def ratios(self, counts: Sequence[int]) -> tuple[float, ...]:
        return tuple(kept / channels for kept, channels in zip(counts, self.channels, strict=True))

    def profile(self) -> Profile:
        fixed = tuple((layer.name, layer.fixed_because) for layer in self.layers if len(layer.allowed) == 1)
        half = self.snap([0.5 * channels for channels in self.channels])
        return Profile(
            self.budget.kind,
            self.dense_cost,
            self.cost(self.lowest),
            self.cost(self.highest),
            self.cost(half),
            len(self.free),
            fixed,
        )

    def check_reachable(self) -> None:
        """Raises UserError that states the reachable range where no counts can meet the budget."""
        lowest, highest = (self.cost(counts) / self.dense_cost for counts in (self.lowest, self.highest))
        slack = self.budget.tolerance
        if not lowest - slack <= self.budget.share <= highest + slack:
            raise UserError(
                f"cp_preserve_ratio: {self.budget.share:g} of the dense network's "
                f"{BUDGET_UNITS[self.budget.kind]} is out of reach; accepted: {lowest:.4f} to {highest:.4f} "
                f"(of its {len(self.layers)} layers {len(self.free)} are free)"
            )

    def window(self, decided: Sequence[int], floors: Sequence[int]) -> tuple[int, int]:
        """Least and greatest allowed count of layer len(decided) from which the budget stays reachable.

        Undecided layers may go down to `floors` and up to `highest` (AMC's wall, from both sides). Where no
        allowed count lies between the two, both ends are the one nearer to the budget; a later projection
        closes the gap.
        """
        layer = len(decided)
        allowed = self.layers[layer].allowed

        def cost_with(count: int, rest: Sequence[int]) -> float:
            return self.cost((*decided, count, *rest[layer + 1 :]))

        above = bisect_left(allowed, True, key=lambda count: cost_with(count, floors) > self.target)
        below = bisect_left(allowed, True, key=lambda count: cost_with(count, self.highest) >= self.target)
        upper, lower = max(above - 1, 0), min(below, len(allowed) - 1)
        if self.budget.ceiling:
            lower = 0
        upper = max(upper, bisect_left(allowed, floors[layer]))
        if lower > upper:
            over = cost_with(allowed[lower], floors) - self.target
            under = self.target - cost_with(allowed[upper], self.highest)
            lower = upper = lower if over < under else upper
        lower = min(max(lower, bisect_left(allowed, floors[layer])), upper)
        return allowed[lower], allowed[upper]

    def floors(self, ratio: float) -> Counts:
        """Least counts an agent may choose: `ratio` of every free layer, or less where the budget asks for
        it."""
        low, high = 0.0, ratio
        if self._cost_of_floor(high) <= self.target:
            low = high
        for _ in range(30 if low < high else 0):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._cost_of_floor(middle) <= self.target else (low, middle)
        return self.snap([low * channels for channels in self.channels])

    def _cost_of_floor(self, ratio: float) -> float:
        return self.cost(self.snap([ratio * channels for channels in self.channels]))


def nearest(allowed: Counts, value: float) -> int:
    """The member of `allowed` (increasing) nearest to `value`; of two equally near, the larger."""
    above = min(bisect_left(allowed, value), len(allowed) - 1)
    below = max(above - 1, 0)
    return allowed[below] if value - allowed[below] < allowed[above] - value else allowed[above]
