"""Selection paths: the channels kept, for every count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class SelectionPath(Protocol):
    """What a criterion decides about a channel group: the channels that stay, for every count."""

    @property
    def errors(self) -> Tensor | None:
        """Relative squared error of the refit for every kept count 0 ... c, (c + 1,); None where it is not known."""

    def kept(self, count: int) -> Tensor:
        """Return the ``count`` channels that stay, a sorted LongTensor."""


@dataclass(frozen=True)
class RankedPath:
    """A path that removes one channel after the other.

    Attributes:
        order: channels in order of removal, a LongTensor (c,); the last is the most useful one.
        errors: as in ``SelectionPath``; float64, on the CPU.
    """

    order: Tensor
    errors: Tensor | None = None

    def kept(self, count: int) -> Tensor:
        """Return the ``count`` channels that stay longest, a sorted LongTensor.

        Raises:
            ValueError: the count lies outside 0 ... c.
        """
        channels = self.order.shape[0]
        check_count(count, channels)
        return self.order[channels - count :].sort().values


def check_count(count: int, channels: int) -> None:
    """Raise ValueError unless ``count`` of ``channels`` can be kept."""
    if not 0 <= count <= channels:
        raise ValueError(f"count must lie in 0 ... {channels}, got {count}")
