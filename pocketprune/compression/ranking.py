"""Ranking: how many channels of each group are masked at a level. Counts only; a criterion says which channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.numerics.paths import SelectionPath

TOLERANCE = 0.005
"""How far a target may lie beyond what can be reached: half a point."""

GRID = 128
"""Levels at which a common level of all groups is looked for where a cost must fall below its target."""

_NOISE = 1e-9
"""Rounding noise of products such as 0.29 * 100, which is less than 29."""


@dataclass(frozen=True)
class Order:
    """The order in which groups give up channels. An entry takes one group to its next lower count.

    Attributes:
        sizes: channels of each group.
        groups: the group of each entry.
        counts: how many channels that group keeps from then on.
    """

    sizes: tuple[int, ...]
    groups: np.ndarray
    counts: np.ndarray

    @property
    def levels(self) -> np.ndarray:
        """The share of each entry's group that is masked from that entry on."""
        levels: np.ndarray = 1 - self.counts / np.array(self.sizes)[self.groups]
        return levels

    def kept(self, entries: int) -> list[int]:
        """Return how many channels each group keeps after the first entries."""
        kept = list(self.sizes)
        for group, count in zip(self.groups[:entries].tolist(), self.counts[:entries].tolist(), strict=True):
            kept[group] = count
        return kept


def lower_counts(size: int, multiple: int = 1, floor: float = 0.0) -> list[int]:
    """Return the counts that a group of ``size`` channels can be brought to, the largest first.

    Args:
        size: channels of the group.
        multiple: counts are multiples of it.
        floor: the share of the group that stays at least.
    """
    least = max(1, math.ceil(floor * size - _NOISE))
    return [count for count in range((size - 1) // multiple * multiple, 0, -multiple) if count >= least]


def masked_count(level: float, size: int) -> int:
    """Return how many of so many are masked at a level: no more than that share, and not all."""
    return min(size - 1, math.floor(level * size + _NOISE))


def uniform_order(sizes: Sequence[int], multiple: int = 1, floor: float = 0.0) -> Order:
    """Return the order in which all groups lose the same share at the same time; ties go to the first group."""
    entries = [
        (1 - count / size, group, count)
        for group, size in enumerate(sizes)
        for count in lower_counts(size, multiple, floor)
    ]
    return _order(sizes, entries)


def global_order(scores: Sequence[Tensor], multiple: int = 1, floor: float = 0.0) -> Order:
    """Return the order in which the channels with the lowest scores of all groups go first.

    Args:
        scores: of each group's channels, comparable between groups. Channels that go together, because of the
            multiple, count with their mean.
        multiple: as in ``lower_counts``, as is ``floor``.
    """
    entries = []
    for group, own in enumerate(scores):
        rising = own.double().sort().values.cpu().numpy()
        before = len(rising)
        for count in lower_counts(len(rising), multiple, floor):
            gone = rising[len(rising) - before : len(rising) - count]
            entries.append((float(gone.mean()), group, count))
            before = count
    return _order([len(own) for own in scores], entries)


def _order(sizes: Sequence[int], entries: list[tuple[float, int, int]]) -> Order:
    entries = sorted(entries, key=lambda entry: (entry[0], entry[1], -entry[2]))
    groups, counts = ([entry[place] for entry in entries] for place in (1, 2))
    return Order(tuple(sizes), np.array(groups, dtype=np.int64), np.array(counts, dtype=np.int64))


def entries_for_share(order: Order, level: float) -> int:
    """Return how many entries bring every group of a uniform order to a level, and none above it.

    A group of n channels keeps the smallest multiple that is at least n (1 - level), as in NNCF.
    """
    return int((order.levels <= level + _NOISE).sum())


def entries_for_channels(order: Order, level: float) -> int:
    """Return how many entries mask a level of all groups' channels together, and no more.

    Raises:
        UserError: the groups cannot lose so many.
    """
    total, kept = sum(order.sizes), list(order.sizes)
    masked = [0]
    for group, count in zip(order.groups.tolist(), order.counts.tolist(), strict=True):
        masked.append(masked[-1] + kept[group] - count)
        kept[group] = count
    _check_reach(level, masked[-1] / total)
    return int(np.searchsorted(masked, math.floor(level * total + _NOISE), side="right")) - 1


def entries_for_cost(order: Order, level: float, cost: Callable[[list[int]], float], dense: float) -> int:
    """Return how many entries bring a cost nearest to (1 - level) of the dense network's, from either side.

    Args:
        order: whose cost falls from entry to entry.
        level: the share of the cost that goes.
        cost: of kept counts, one for each group.
        dense: the cost of the whole network.

    Raises:
        UserError: the groups cannot save so much.
    """
    saved = {entries: 1 - cost(order.kept(entries)) / dense for entries in (0, len(order.groups))}
    _check_reach(level, saved[len(order.groups)])
    low, high = 0, len(order.groups)
    while high - low > 1:
        middle = (low + high) // 2
        saved[middle] = 1 - cost(order.kept(middle)) / dense
        low, high = (low, middle) if saved[middle] > level else (middle, high)
    return min((low, high), key=lambda entries: (abs(saved[entries] - level), entries))


def common_levels(order: Order) -> list[int]:
    """Return how many entries bring all groups of a uniform order to each of the levels 1/128, 2/128 ... 1.

    These are the levels that NNCF's bisection to 0.01 comes to.
    """
    return [entries_for_share(order, step / GRID) for step in range(1, GRID + 1)]


def entries_below_cost(
    order: Order, level: float, cost: Callable[[list[int]], float], dense: float, cuts: Sequence[int]
) -> int:
    """Return the first of some cuts whose cost is less than (1 - level) of the dense network's.

    Args:
        order: whose cost falls from entry to entry.
        level: the share of the cost that goes at least.
        cost: of kept counts, one for each group.
        dense: the cost of the whole network.
        cuts: numbers of entries, rising.

    Raises:
        UserError: the groups cannot save so much.
    """

    def is_met(place: int) -> bool:
        return cost(order.kept(cuts[place])) < (1 - level) * dense

    if not is_met(len(cuts) - 1):
        most = 1 - cost(order.kept(cuts[-1])) / dense
        raise UserError(f"{level:g} given; less than {most:.3f} can be reached", argument="target")
    low, high = -1, len(cuts) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_met(middle) else (middle, high)
    return cuts[high]


def _check_reach(level: float, most: float) -> None:
    if level > most + TOLERANCE:
        raise UserError(f"{level:g} given; 0 to {max(most, 0.0):.3f} can be reached", argument="target")


def kept_of(path: SelectionPath, count: int, gone: Tensor) -> list[int]:
    """Return the ``count`` channels that a path keeps, none of those that are gone among them.

    Args:
        path: of the channels.
        count: how many stay; fewer do where more are gone.
        gone: boolean (c,) of the channels that cannot stay.
    """
    lost = set(gone.nonzero().flatten().tolist())
    count = min(count, len(gone) - len(lost))
    for wider in range(count, len(gone) + 1):
        kept = [channel for channel in path.kept(wider).tolist() if channel not in lost]
        if len(kept) >= count:
            return kept[:count]
    raise AssertionError("all channels together hold those that are not gone")
