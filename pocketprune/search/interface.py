"""What a search sees of a network, and what it hands back: the types every searcher shares.

A search never touches tensors of the network. It chooses *counts*, one kept channel count per prunable layer
in forward order, asks what they cost and how well the thinned network scores with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Counts = tuple[int, ...]


def replaced(counts: Counts, layer: int, count: int) -> Counts:
    """`counts` with another count for one layer."""
    return (*counts[:layer], count, *counts[layer + 1 :])


@dataclass(frozen=True)
class SearchLayer:
    """One prunable layer.

    `allowed` are the kept counts the layer may take, increasing; a single one means that the layer is fixed,
    for the reason in `fixed_because`. `macs` are those of the dense layer, per single input; `height` and
    `width` are its output's.
    """

    name: str
    channels: int
    allowed: Counts
    out_channels: int
    height: int
    width: int
    stride: int
    kernel: int
    macs: int
    fixed_because: str = ""


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in [0, 1] and mean cross-entropy on the held-out split of the training set.

    `divergence` is the mean Kullback-Leibler divergence of the predictions from the dense network's on the same
    images: the loss increase that is to be expected if the dense network knows its own uncertainty. It is free of the
    labels' noise, and tells a cut of one layer where loss and accuracy cannot.
    """

    accuracy: float
    loss: float
    divergence: float


class Environment(Protocol):
    """A network that can be pruned to any counts, scored, and priced."""

    layers: Sequence[SearchLayer]

    def cost(self, counts: Sequence[int]) -> float:
        """Exact cost of the thinned network in the budget's unit (MACs, parameters, milliseconds).

        Never falls when a count rises; nothing else may be assumed of it.
        """
        ...

    def error_curve(self, layer: int) -> np.ndarray:
        """(channels + 1,) relative reconstruction error of one layer for every kept count 0..channels."""
        ...

    def score(self, counts: Sequence[int]) -> Score:
        """Score the thinned network with the weights refitted for these counts. Same counts, same score."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One scored set of counts. A `probe` only measures; a `rollout` is a candidate result under the budget.

    `share` is the cost as a share of the dense cost. `seconds`, since the search began, takes no part in
    comparisons.
    """

    index: int
    kind: str
    counts: Counts
    accuracy: float
    loss: float
    divergence: float
    cost: float
    share: float
    reward: float
    seconds: float = field(default=0.0, compare=False)

    @property
    def score(self) -> Score:
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
    """The best counts found, scored, with every roll-out on the way there.

    `ratios` are the preserve ratios, one per layer, that the `list` option replays from the dense weights.
    """

    method: str
    counts: Counts
    ratios: tuple[float, ...]
    score: Score
    reward: float
    cost: float
    share: float
    history: tuple[Rollout, ...]
    seconds: float = field(default=0.0, compare=False)
