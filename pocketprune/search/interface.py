"""What a search sees of its problem, and what it hands back: the types that every searcher shares.

A search chooses a whole number, a *value*, for each of several *variables*. It asks what the values cost and how well
the network that follows from them scores. What a variable stands for in that network is none of its business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

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
        name: how reports and tables call it.
        full: the value in the full network, which nothing was taken from; no allowed value is larger.
        allowed: the values that it may take, increasing; a single one means that the variable is fixed.
        fixed_because: why it is fixed; "" where it is free.
        features: numbers that describe it, as many for every variable. Only a learning agent looks at them.
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
        divergence: mean Kullback-Leibler divergence of the predictions from the full network's on the same examples:
            the loss increase that is to be expected if the full network knows its own uncertainty. It is free of the
            labels' noise, and tells a change of one variable where loss and accuracy cannot.
    """

    accuracy: float
    loss: float
    divergence: float


class Environment(Protocol):
    """Something whose variables can be set to any allowed values, priced and scored."""

    variables: Sequence[Variable]

    def cost(self, values: Sequence[int]) -> float:
        """Return the exact cost of these values, in the budget's unit.

        It never falls when a value rises; nothing else may be assumed of it.
        """
        ...

    def error_curve(self, index: int) -> np.ndarray:
        """Return (full + 1,) the relative error that one variable causes at each value from 0 to `full`."""
        ...

    def score(self, values: Sequence[int]) -> Score:
        """Score the network that follows from these values. The same values have the same score."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One scored set of values.

    Attributes:
        index: its number in the history of the search.
        kind: "rollout", a candidate for the result; or "probe", which only measures.
        share: the cost as a share of the full network's.
        seconds: since the search began; takes no part in comparisons.
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
        """The score alone."""
        return Score(self.accuracy, self.loss, self.divergence)


@dataclass(frozen=True)
class Progress:
    """Told after every roll-out: how far the search is, the best so far, and the searcher's own figures."""

    done: int
    expected: int
    rollout: Rollout
    best: Rollout | None
    facts: dict[str, float]


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class SearchResult:
    """The best values found, scored, with every roll-out on the way there.

    Attributes:
        share: the cost as a share of the full network's.
        seconds: that the search took; takes no part in comparisons.
    """

    method: str
    values: Values
    score: Score
    reward: float
    cost: float
    share: float
    history: tuple[Rollout, ...]
    seconds: float = field(default=0.0, compare=False)
