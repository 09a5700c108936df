"""The calibration images of one process, and how the processes of a pruning put their moments together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pocketprune.graph.tracing import batch_of
from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.training.distributed import gather_objects

HELD_OUT = 5
"""One image in five is held out of the fit and judges it."""


class Calibration:
    """Batches of inputs, of which the last images of each batch are held out.

    Under several processes every process brings its own part of each batch: its images are every `world`-th of the
    whole batch, from `rank` on. Which images are held out is decided on whole batches, so that the processes together
    fit and judge on the images that one process would.

    Attributes:
        batches: this process's inputs.
        rank: this process's number.
        world: how many processes there are.
    """

    def __init__(self, batches: Sequence[Any], *, rank: int = 0, world: int = 1) -> None:
        self.batches, self.rank, self.world = list(batches), rank, world
        self._sizes = [batch_of(batch) for batch in self.batches]
        parts = self.gather(self._sizes)
        longest = max(map(len, parts))
        whole = [sum(part[number] for part in parts if number < len(part)) for number in range(longest)]
        self._fitted, seen = [], 0
        for size in whole:
            fitted = size - (seen + size) // HELD_OUT + seen // HELD_OUT
            self._fitted.append(len(range(rank, fitted, world)))
            seen += size

    def fitted_rows(self, number: int, length: int) -> int:
        """Return how many of the first rows of batch `number`, which a layer sees as `length` rows, are fitted to."""
        size = self._sizes[number]
        return min(length, self._fitted[number] * length // size if size else 0)

    def held_out(self) -> list[Any]:
        """Return the held-out images of this process, batch by batch, as inputs of the network.

        Where no image is held out these are all images.
        """
        if self.world == 1 and self._fitted == self._sizes:
            return self.batches
        found = []
        for batch, size, fitted in zip(self.batches, self._sizes, self._fitted, strict=False):
            if fitted < size:
                found.append(pytree.tree_map_only(Tensor, _Rows(size, fitted), batch))
        return found

    def total(self, moments: list[Moments]) -> list[Moments]:
        """Return the moments of all processes' images; to be called in each of them."""
        return [all_reduce(m) for m in moments] if self.world > 1 else moments

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank; to be called in each of them."""
        return gather_objects(value) if self.world > 1 else [value]


class _Rows:
    """Picks the rows from `first` on of tensors that have the batch axis."""

    def __init__(self, size: int, first: int) -> None:
        self.size, self.first = size, first

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor[self.first :] if tensor.dim() and len(tensor) == self.size else tensor


class Positions:
    """Draws random output positions; each process has its own."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: int, places: int) -> Tensor:
        """Return positions (p,) out of `places`, shared by the images of a batch."""
        return torch.randperm(places, generator=self.generator)[: min(self.count, places)].to(self.device)
