"""The calibration images of one process, and how the processes of a run put their moments together."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

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
        self._sizes = [_images_of(batch) for batch in self.batches]
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


def _images_of(batch: Any) -> int:
    """How many inputs a batch holds: the length of its first tensor that has one."""
    return next((len(t) for t in pytree.tree_leaves(batch) if isinstance(t, Tensor) and t.dim()), 1)


class Positions:
    """Random output positions, each process's own; `state` continues them after an interruption."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: int, places: int) -> Tensor:
        """Positions (p,) shared by the images of a batch, out of `places`."""
        return torch.randperm(places, generator=self.generator)[:min(self.count, places)].to(self.device)
