"""A budget on an environment: what is reachable, what meets it, and which values an agent may choose."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.common.options import NOT_NEGATIVE, SHARE, check_options, option
from pocketprune.search.interface import Environment, Values

BUDGET_UNITS = {"macs": "MACs", "params": "parameters", "latency": "ms", "bits": "bits"}


@dataclass(frozen=True)
class Budget:
    """What the values may cost, as a share of the full network's cost. It is met from above and from below.

    Of the values that meet the budget, those above it by more than `aim` are avoided. A searcher that maximises would
    otherwise stay at the upper edge and beat others by cost alone.
    """

    kind: str = option("macs", "the cost that is bounded: macs, params, latency or bits", accept=tuple(BUDGET_UNITS))
    share: float = option(0.5, "share of the dense network's cost to keep, met within half a point", accept=SHARE)
    tolerance: float = option(0.005, "by how much the share may be missed", accept=NOT_NEGATIVE)
    aim: float = option(0.001, "by how much the share is exceeded without a disadvantage", accept=NOT_NEGATIVE)
    ceiling: bool = option(False, "whether anything cheaper is welcome too, as for the reward flops")

    def check(self) -> None:
        """Raise a UserError for a value that is not accepted."""
        check_options(self, "budget.")


@dataclass(frozen=True)
class Profile:
    """The range that a budget has, shown before any search. Costs are in the unit of the budget."""

    kind: str
    full: float
    smallest: float
    largest: float
    uniform_half: float
    free: int
    fixed: tuple[tuple[str, str], ...]  # (variable, reason)

    def lines(self) -> list[str]:
        """Return the profile as a few lines of text."""
        unit = BUDGET_UNITS[self.kind]
        head = [
            f"{name}: {cost:,.6g} {unit} ({cost / self.full:.1%})"
            for name, cost in (
                ("full", self.full),
                ("half of every value", self.uniform_half),
                ("smallest", self.smallest),
            )
        ]
        return [*head, f"free: {self.free}", *(f"fixed: {name}: {why}" for name, why in self.fixed)]


class Problem:
    """An environment under a budget: the arithmetic that every searcher shares.

    Attributes:
        free: indices of the variables with a choice.
        lowest, highest: the smallest and the largest allowed value of every variable.
        full, full_cost: the values of the full network, and their cost.
        target: the cost to be met.
    """

    def __init__(self, env: Environment, budget: Budget) -> None:
        budget.check()
        self.env = env
        self.budget = budget
        self.variables = tuple(env.variables)
        self.lowest: Values = tuple(variable.allowed[0] for variable in self.variables)
        self.highest: Values = tuple(variable.allowed[-1] for variable in self.variables)
        self.free = tuple(i for i, variable in enumerate(self.variables) if len(variable.allowed) > 1)
        self.full: Values = tuple(variable.full for variable in self.variables)
        self.full_cost = float(env.cost(self.full))
        self.target = budget.share * self.full_cost

    def cost(self, values: Sequence[int]) -> float:
        """Return the cost of these values in the unit of the budget."""
        return float(self.env.cost(values))

    def miss(self, values: Sequence[int]) -> float:
        """Return the distance from the budget as a share of the full cost; 0 for cheaper values under a ceiling."""
        return self.miss_of_cost(self.cost(values))

    def miss_of_cost(self, cost: float) -> float:
        """Return the distance of a cost from the budget, as `miss` does."""
        distance = (cost - self.target) / self.full_cost
        return max(0.0, distance) if self.budget.ceiling else abs(distance)

    def meets(self, values: Sequence[int]) -> bool:
        """Return whether the values meet the budget within its tolerance."""
        return self.miss(values) <= self.budget.tolerance

    def rank(self, values: Sequence[int]) -> tuple[bool, bool, float]:
        """Return a key to sort by: first values that meet the budget, then those not above it, then the nearest."""
        cost = self.cost(values)
        miss = self.miss_of_cost(cost)
        above = cost > self.target + self.budget.aim * self.full_cost
        return (miss > self.budget.tolerance, above, miss)

    def fits(self, values: Sequence[int]) -> bool:
        """Return whether the values meet the budget without being above it."""
        return not any(self.rank(values)[:2])

    def snap(self, wish: Sequence[float] | np.ndarray) -> Values:
        """Return the allowed values nearest to real numbers. Of two equally near ones it is the larger."""
        pairs = zip(self.variables, wish, strict=True)
        return tuple(nearest_allowed(variable.allowed, float(number)) for variable, number in pairs)

    def shares(self, values: Sequence[int]) -> tuple[float, ...]:
        """Return each value as a share of the full one."""
        return tuple(value / full for value, full in zip(values, self.full, strict=True))

    def profile(self) -> Profile:
        """Return the range that the budget has."""
        fixed = tuple((v.name, v.fixed_because) for v in self.variables if len(v.allowed) == 1)
        half = self.snap([0.5 * full for full in self.full])
        return Profile(
            self.budget.kind,
            self.full_cost,
            self.cost(self.lowest),
            self.cost(self.highest),
            self.cost(half),
            len(self.free),
            fixed,
        )

    def check_reachable(self) -> None:
        """Raise a UserError with the reachable range if no values can meet the budget."""
        lowest, highest = (self.cost(values) / self.full_cost for values in (self.lowest, self.highest))
        slack = self.budget.tolerance
        if not lowest - slack <= self.budget.share <= highest + slack:
            raise UserError(
                f"{self.budget.share:g} of the full network's {BUDGET_UNITS[self.budget.kind]} is out of reach; "
                f"accepted: {lowest:.4f} to {highest:.4f} "
                f"(of {len(self.variables)} variables {len(self.free)} are free)",
                argument="budget.share",
            )

    def window(self, decided: Sequence[int], floors: Sequence[int]) -> tuple[int, int]:
        """Return the least and the greatest value of variable len(decided) from which the budget stays reachable.

        Undecided variables may go down to `floors` and up to `highest` (AMC's wall, from both sides). If no allowed
        value lies between the two, both are the one nearer to the budget, and a later projection closes the gap.
        """
        index = len(decided)
        allowed = self.variables[index].allowed

        def cost_with(value: int, rest: Sequence[int]) -> float:
            return self.cost((*decided, value, *rest[index + 1 :]))

        above = bisect_left(allowed, True, key=lambda value: cost_with(value, floors) > self.target)
        below = bisect_left(allowed, True, key=lambda value: cost_with(value, self.highest) >= self.target)
        upper, lower = max(above - 1, 0), min(below, len(allowed) - 1)
        if self.budget.ceiling:
            lower = 0
        upper = max(upper, bisect_left(allowed, floors[index]))
        if lower > upper:
            over = cost_with(allowed[lower], floors) - self.target
            under = self.target - cost_with(allowed[upper], self.highest)
            lower = upper = lower if over < under else upper
        lower = min(max(lower, bisect_left(allowed, floors[index])), upper)
        return allowed[lower], allowed[upper]

    def floors(self, share: float) -> Values:
        """Return the least values an agent may choose: `share` of every full one, or less if the budget needs it."""
        low, high = 0.0, share
        if self._cost_of_floor(high) <= self.target:
            low = high
        for _ in range(30 if low < high else 0):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._cost_of_floor(middle) <= self.target else (low, middle)
        return self.snap([low * full for full in self.full])

    def _cost_of_floor(self, share: float) -> float:
        return self.cost(self.snap([share * full for full in self.full]))


def nearest_allowed(allowed: Values, number: float) -> int:
    """Return the member of `allowed` (increasing) nearest to `number`. Of two equally near ones it is the larger."""
    above = min(bisect_left(allowed, number), len(allowed) - 1)
    below = max(above - 1, 0)
    return allowed[below] if number - allowed[below] < allowed[above] - number else allowed[above]
