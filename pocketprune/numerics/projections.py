"""Projections onto the sets that pruned weights lie in: the nearest point of the set, in the Euclidean distance.

A set holds all weights with so many zeros of one pattern. Its nearest point keeps the largest weights and sets the
others to zero, so that a projection is a mask (Boyd et al. 2011, "Distributed Optimization and Statistical Learning via
ADMM", section 9.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from pocketprune.numerics.weight_patterns import Pattern, least_masked, lowest


@dataclass(frozen=True)
class SparseSet:
    """All weights of which a share is zero.

    Attributes:
        kind: a key of `SETS`.
        level: the share of zeros, in [0, 1).
        pattern: of single weights; not used by the other kinds.
    """

    kind: str
    level: float
    pattern: Pattern = field(default_factory=Pattern)

    def masked(self, weight: Tensor) -> Tensor:
        """Return where the nearest point of the set is zero, a boolean of the weight's shape."""
        return SETS[self.kind](weight.detach(), self)

    def nearest(self, weight: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        return weight.detach().masked_fill(self.masked(weight), 0)


def _weights(weight: Tensor, given: SparseSet) -> Tensor:
    return least_masked([weight.square()], given.pattern, given.level)[0]


def _filters(weight: Tensor, given: SparseSet) -> Tensor:
    return _slices(weight, 0, given.level)


def _channels(weight: Tensor, given: SparseSet) -> Tensor:
    return _slices(weight, 1, given.level)


def _slices(weight: Tensor, axis: int, level: float) -> Tensor:
    others = [a for a in range(weight.dim()) if a != axis]
    norms = weight.square().sum(others)
    count = min(round(level * len(norms)), len(norms) - 1)  # never all of them
    shape = [-1 if a == axis else 1 for a in range(weight.dim())]
    return lowest([norms], count)[0].view(shape).expand(weight.shape)


SETS: dict[str, Callable[[Tensor, SparseSet], Tensor]] = {
    "weights": _weights,
    "filters": _filters,
    "channels": _channels,
}
"""What is zero: single weights in a pattern, whole output filters, or whole input channels."""
