"""Training images that criteria, batch norms and refits look at."""

import math

from torch import Tensor

from learners.context import RunContext
from pocketprune.training.distributed import rank, world_size


def labelled_batches(run: RunContext, images: int) -> list[tuple[Tensor, Tensor]]:
    """Return shuffled, unaugmented training images with their labels, so many but no image twice.

    Under several processes, this one's part of them.
    """
    batches = run.dataset.train.batches(
        run.config.data.batch_size // world_size(),
        seed=run.config.run.seed,
        shuffle=True,
        rank=rank(),
        world_size=world_size(),
    )
    left, found = math.ceil(images / world_size()), []
    for x, labels in batches:
        if left <= 0:
            break
        found.append((x[:left].to(run.device), labels[:left].to(run.device)))
        left -= len(x)
    return found
