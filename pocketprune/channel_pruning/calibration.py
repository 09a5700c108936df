"""The calibration images of one process, and the sums of moments over the processes of a pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pocketprune.graph.tracing import batch_of
from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.training.distributed import gather_objects, rank, world_size

HELD_OUT = 5
"""The fit does not use one image in HELD_OUT. The fit's error is measured on these images."""


class Calibration:
    """Batches of inputs, of which the last images of each batch are held out.

    Under several processes every process brings its own part of each batch: every `world`-th image of the whole batch,
    from number `rank` on. The held-out images are chosen on whole batches. The processes together therefore use the
    same images for the fit, and the same ones for its error, as a single process.

    Attributes:
        batches: this process's inputs.
        rank: this process's number.
        world: number of processes.
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

    @classmethod
    def of(cls, batches: Sequence[Any], *, together: bool) -> Calibration:
        """Return this process's images, as its share of those of all processes or by themselves."""
        return cls(batches, rank=rank(), world=world_size()) if together else cls(batches)

    def fitted_rows(self, number: int, length: int) -> int:
        """Return how many of the first rows of batch `number` the fit uses. A layer sees it as `length` rows."""
        size = self._sizes[number]
        return min(length, self._fitted[number] * length // size if size else 0)

    def held_out(self) -> list[Any]:
        """Return the held-out images of this process, batch by batch, as inputs of the network.

        If no image is held out, these are all images.
        """
        if self.world == 1 and self._fitted == self._sizes:
            return self.batches
        found = []
        for batch, size, fitted in zip(self.batches, self._sizes, self._fitted, strict=False):
            if fitted < size:
                found.append(pytree.tree_map_only(Tensor, _Rows(size, fitted), batch))
        return found

    def fitted(self) -> list[Any]:
        """Return the images of this process that the fit uses, batch by batch, as inputs of the network."""
        pairs = zip(self.batches, self._sizes, self._fitted, strict=False)
        return [pytree.tree_map_only(Tensor, _Rows(size, 0, last), batch) for batch, size, last in pairs if last]

    def first(self, count: int) -> list[tuple[Any, list[int]]]:
        """Return the first images of this process, up to `count`, with their numbers."""
        found, left = [], count
        for batch, (inputs, size) in enumerate(zip(self.batches, self._sizes, strict=True)):
            if (taken := min(size, left)) > 0:
                part = pytree.tree_map_only(Tensor, _Rows(size, 0, taken), inputs)
                found.append((part, self._numbers(batch, 0, taken)))
                left -= taken
        return found

    def held_out_numbered(self) -> list[tuple[Any, list[int]]]:
        """Return the held-out images, as `held_out` does, with their numbers."""
        sizes = [(batch, size) for batch, size in enumerate(self._sizes)]
        spans = [(batch, self._fitted[batch], size) for batch, size in sizes if self._fitted[batch] < size]
        spans = spans or [(batch, 0, size) for batch, size in sizes]
        return [(part, self._numbers(*span)) for part, span in zip(self.held_out(), spans, strict=False)]

    def _numbers(self, batch: int, first: int, end: int) -> list[int]:
        """Return the numbers of rows of a batch. An image has the same number in any number of processes."""
        return [(batch << 32) + self.rank + self.world * row for row in range(first, end)]

    def total(self, moments: list[Moments]) -> list[Moments]:
        """Return the moments of all processes' images. Every process must call this."""
        return [all_reduce(m) for m in moments] if self.world > 1 else moments

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank. Every process must call this."""
        return gather_objects(value) if self.world > 1 else [value]


class _Rows:
    """A function that returns the rows from `first` to before `last` of a tensor that has the batch axis."""

    def __init__(self, size: int, first: int, last: int | None = None) -> None:
        self.size, self.first, self.last = size, first, last

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor[self.first : self.last] if tensor.dim() and len(tensor) == self.size else tensor


class Positions:
    """A source of random output positions. Each process has its own one."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: int, places: int) -> Tensor:
        """Return positions (p,) out of `places`. The images of a batch share them."""
        return torch.randperm(places, generator=self.generator)[: min(self.count, places)].to(self.device)
