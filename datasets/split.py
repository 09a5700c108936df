"""The parts of every data set: three splits that give normalised batches in a reproducible order.

Order and augmentation come from generators of their own, with keys made of (seed, epoch, batch). They do not depend on
the start of an iteration, on earlier iterations or on torch's global generator, which is not used.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketprune.common.errors import UserError

_ORDER, _AUGMENTATION, _HOLDOUT = range(3)  # independent streams of random numbers


@dataclass(frozen=True)
class Plan:
    """One pass over a split, as one of `world_size` processes sees it. `batch_size` is that of this process."""

    batch_size: int
    seed: int = 0
    epoch: int = 0
    start: int = 0
    shuffle: bool = False
    augment: bool = False
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: accepted: 1 or more")
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"rank={self.rank}: accepted: 0 to world_size - 1 = {self.world_size - 1}")
        if self.start < 0:
            raise UserError(f"start={self.start}: accepted: 0 or more")

    def samples(self, size: int) -> Tensor:
        """Return this rank's sample numbers (int64, CPU): every world_size-th of the epoch's global permutation."""
        if self.shuffle:
            order = torch.randperm(size, generator=generator(_ORDER, self.seed, self.epoch))
        else:
            order = torch.arange(size)
        return order[self.rank :: self.world_size]

    def batch_range(self, size: int) -> range:
        """Return the numbers of this rank's batches, from `start` on. With `drop_last` every rank has the same."""
        if self.drop_last:
            stop = size // self.world_size // self.batch_size
        else:
            stop = math.ceil(len(range(self.rank, size, self.world_size)) / self.batch_size)
        return range(min(self.start, stop), stop)

    def uniforms(self, batch: int, columns: int) -> Tensor:
        """Return numbers in [0, 1) that decide a batch's augmentation: (batch_size, columns), float32, CPU.

        They are drawn for the global batch, and each rank takes the rows of its samples. The augmentation of a sample
        therefore does not depend on the number of processes.
        """
        source = generator(_AUGMENTATION, self.seed, self.epoch, batch)
        rows = torch.rand(self.batch_size * self.world_size, columns, generator=source)
        return rows[self.rank :: self.world_size]


class Split(ABC):
    """One part of a data set."""

    device: torch.device

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def _iterate(self, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `plan`."""

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return an iterator over (images (n, C, H, W), float32, normalised, on the device; labels (n,), int64).

        Batch b is a function of (seed, epoch, b) alone. With several processes, a rank gets every world_size-th sample
        of the same permutation. Batch b of all ranks together is then the batch of a single process.

        Args:
            batch_size: images per batch in this process.
            seed: of order and augmentation.
            epoch: number of the pass over the data.
            start: number of the first batch; the ones before it are skipped.
            shuffle: whether the order is random.
            augment: whether images are augmented.
            drop_last: whether an incomplete last batch is left out.
            rank: number of this process.
            world_size: number of processes.

        Raises:
            UserError: the batch size, rank or start is out of range.
        """
        plan = Plan(batch_size, seed, epoch, start, shuffle, augment, drop_last, rank, world_size)
        return self._iterate(plan)

    def num_batches(self, batch_size: int, *, drop_last: bool = False, world_size: int = 1) -> int:
        """Return the number of batches in an epoch.

        It is that of every rank with `drop_last`, and otherwise that of rank 0. Other ranks may then have one less.
        """
        return len(Plan(batch_size, drop_last=drop_last, world_size=world_size).batch_range(len(self)))


@dataclass(frozen=True)
class Dataset:
    """Labelled images of `input_shape` (C, H, W). `val` is held out of the training set."""

    name: str
    num_classes: int
    input_shape: tuple[int, int, int]
    train: Split
    val: Split
    test: Split


def generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose numbers are a function of the integers in `key`."""
    words = np.random.SeedSequence([k % 2**64 for k in key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def hold_out(
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Divide samples into those for training and held-out ones, with equal shares of every class.

    Args:
        labels: those of all samples (N,).
        num_classes: number of classes.
        seed: decides which samples are held out.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given. Without either it is a tenth, but at most 10,000 samples.

    Returns:
        The sorted indices of the samples for training, and those of the held-out ones.

    Raises:
        UserError: a class would have no sample on one of the sides.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    for label, count in enumerate(counts.tolist()):
        if count < 2:
            few = f"class {label} has {count} training sample(s)"
            raise UserError(f"--nb_smpls_val: {few}; a validation split needs 2 or more in every class")
    wanted = _shares(counts, _holdout_size(len(labels), nb_smpls_val, val_fraction, num_classes))
    source = generator(_HOLDOUT, seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(wanted.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        held[members[torch.randperm(len(members), generator=source)[:count]]] = True
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def _holdout_size(size: int, nb_smpls_val: int | None, val_fraction: float | None, num_classes: int) -> int:
    if nb_smpls_val is not None:
        flag, count = f"--nb_smpls_val={nb_smpls_val}", nb_smpls_val
    elif val_fraction is not None:
        flag, count = f"val_fraction={val_fraction}", round(val_fraction * size)
    else:
        flag, count = "--nb_smpls_val", max(num_classes, min(size // 10, 10_000))
    if not num_classes <= count <= size - num_classes:
        accepted = f"{num_classes} to {size - num_classes} samples (one per class on either side)"
        raise UserError(f"{flag}: {count} of {size} training samples held out; accepted: {accepted}")
    return count


def _shares(counts: Tensor, total: int) -> Tensor:
    """Divide `total` in proportion to `counts`, by largest remainders. Each share is between 1 and count - 1."""
    exact = counts.double() * total / counts.sum()
    shares = torch.minimum(exact.floor().long().clamp(min=1), counts - 1)
    while (missing := total - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = (shares < counts - 1) if step > 0 else (shares > 1)
        urgency = torch.where(room, (exact - shares) * step, -math.inf)
        shares[urgency.argmax()] += step
    return shares
