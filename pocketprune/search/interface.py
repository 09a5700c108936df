"""What a search sees of its problem, and what it returns: the types that every searcher shares.

A search chooses a whole number, a *value*, for each of several *variables*. It asks what the values cost and how well
the network that follows from them scores. It does not know what a variable stands for in that network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

Values = tuple[int, ...]
"""One value for every variable, in the variables' order."""


def replaced(values: Values, index: int, value: int) -> Values:
    """Return `values` with another value for one variable."""
    return (*values[:index], value, *values[index + 1 :])


@dataclass(frozen=True)
class Variable:
    """One number to choose.

    Attributes:
        name: its name in reports and tables.
        full: the value in the full network. No allowed value is larger.
        allowed: the values that it may take, increasing. A single one means that the variable is fixed.
        fixed_because: why it is fixed; "" where it is free.
        features: numbers that describe it, equally many for every variable. Only a learning agent reads them.
    """

    name: str
    full: int
    allowed: Values
    fixed_because: str = ""
    features: tuple[float, ...] = ()


@dataclass(frozen=True)
class Score:
    """How well a network does on held-out examples.

    Attributes:
        accuracy: share of right answers, in [0, 1].
        loss: mean cross-entropy.
        divergence: mean Kullback-Leibler divergence of the predictions from the full network's on the same examples.
            It is the expected loss increase if the full network's probabilities are right. Without the labels' noise,
            it shows the change of one variable where loss and accuracy cannot.
    """

    accuracy: float
    loss: float
    divergence: float


class Environment(Protocol):
    """Something with variables that can be set to any allowed values, which then have a cost and a score."""

    variables: Sequence[Variable]

    def cost(self, values: Sequence[int]) -> float:
        """Return the exact cost of these values, in the budget's unit.

        It never falls when a value rises. Nothing else may be assumed of it.
        """
        ...

    def error_curve(self, index: int) -> np.ndarray:
        """Return the relative error (full + 1,) that one variable causes at each value from 0 to `full`."""
        ...

    def score(self, values: Sequence[int]) -> Score:
        """Score the network that follows from these values. The same values have the same score."""
        ...


@runtime_checkable
class PricedEnvironment(Environment, Protocol):
    """An environment that knows what single variables cost without scoring a network."""

    def divergences(self, trials: Sequence[tuple[int, int]]) -> Sequence[float]:
        """Return the divergence from the full network for each (index, value), expected without scoring any network.

        All other variables have their full values.
        """
        ...


@dataclass(frozen=True)
class Rollout:
    """One scored set of values.

    Attributes:
        index: its number in the history of the search.
        kind: "rollout" for a candidate for the result, "probe" for a measurement only.
        share: the cost as a share of the full network's.
        seconds: since the search began. They take no part in comparisons.
    """

    index: int
    kind: str
    values: Values
    accuracy: float
    loss: float
    divergence: float
    cost: float
    share: float
    reward: float
    seconds: float = field(default=0.0, compare=False)

    @property
    def score(self) -> Score:
        """The score without the rest."""
        return Score(self.accuracy, self.loss, self.divergence)


@dataclass(frozen=True)
class Progress:
    """What a search reports after every roll-out: its progress, the best one so far, and the searcher's figures."""

    done: int
    expected: int
    rollout: Rollout
    best: Rollout | None
    facts: dict[str, float]


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class SearchResult:
    """The best values of a search, with their score and every roll-out.

    Attributes:
        share: the cost as a share of the full network's.
        seconds: duration of the search. It takes no part in comparisons.
    """

    method: str
    values: Values
    score: Score
    reward: float
    cost: float
    share: float
    history: tuple[Rollout, ...]
    seconds: float = field(default=0.0, compare=False)
