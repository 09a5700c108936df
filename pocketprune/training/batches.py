"""The batches of a training, in an order that a resumed run repeats."""

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.metrics import Split
from pocketprune.training.state import TrainSettings


def steps_per_epoch(split: Split, settings: TrainSettings) -> int:
    """Return the number of full batches in one pass over the split.

    In one process, a split smaller than a batch is one step.

    Raises:
        UserError: the images are too few, or the processes cannot share a batch evenly.
    """
    world, batch_size = distributed.world_size(), settings.batch_size
    if batch_size % world:
        raise UserError(f"{batch_size} given; it must be a multiple of the {world} processes", argument="batch_size")
    least = 1 if world == 1 else batch_size
    if len(split) < least:
        raise UserError(
            f"training images: {len(split)} are too few; batch_size={batch_size} on {world} process(es) "
            f"needs at least {least}"
        )
    return max(1, len(split) // batch_size)


def training_batches(split: Split, settings: TrainSettings, step: int, total: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's (images, labels) of the steps from `step` to the last one.

    They are those that an uninterrupted run gets.

    Raises:
        RuntimeError: the split gives fewer batches than its length promises.
    """
    per_epoch = steps_per_epoch(split, settings)
    while step < total:
        epoch, start = divmod(step, per_epoch)
        count = min(per_epoch - start, total - step)
        given = 0
        for batch in islice(_epoch(split, settings, epoch, start), count):
            yield batch
            given += 1
        if given != count:
            raise RuntimeError(f"epoch {epoch}: the split gave {given} batches of {count}")
        step += count


def _epoch(split: Split, settings: TrainSettings, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch, without the first `start`."""
    world = distributed.world_size()
    return split.batches(
        settings.batch_size // world,
        seed=settings.seed,
        epoch=epoch,
        start=start,
        shuffle=True,
        augment=settings.augment,
        drop_last=len(split) >= settings.batch_size,
        rank=distributed.rank(),
        world_size=world,
    )
