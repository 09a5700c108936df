"""The calibration images of one process, and how the processes of a run put their moments together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pocketprune.graph.tracing import batch_of
from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.training.distributed import gather_objects

HELD_OUT = 5
"""One image in so many is held out of the fit and judges it."""


class Calibration:
    """Batches of inputs, of which the last images of each batch are held out.

    Under several processes every process brings its own part of each batch: its images are every `world`-th of the
    whole batch, from `rank` on. Which images are held out is decided on whole batches, so that the processes together
    fit and judge on the images that one process would.

    Attributes:
        batches: this process's inputs.
        rank, world: this process's number, and how many there are.
    """

    def __init__(self, batches: Sequence[Any], *, rank: int = 0, world: int = 1) -> None:
        self.batches, self.rank, self.world = list(batches), rank, world
        self._sizes = [batch_of(batch) for batch in self.batches]
        parts = gather_objects(self._sizes) if world > 1 else [self._sizes]
        longest = max(map(len, parts))
        whole = [sum(part[number] for part in parts if number < len(part)) for number in range(longest)]
        self._cuts, seen = [], 0
        for size in whole:
            fitted = size - (seen + size) // HELD_OUT + seen // HELD_OUT
            self._cuts.append(len(range(rank, fitted, world)))
            seen += size

    def cut(self, number: int, length: int) -> int:
        """How many of the first rows of batch `number`, which a layer sees as `length` rows, are fitted on."""
        size = self._sizes[number]
        return min(length, self._cuts[number] * length // size if size else 0)

    def total(self, moments: list[Moments]) -> list[Moments]:
        """The moments of all processes' images; to be called in each of them."""
        return [all_reduce(m) for m in moments] if self.world > 1 else moments
