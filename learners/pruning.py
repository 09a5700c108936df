"""What pruning learners share: their stages and files, calibration images, the layers command, pictures of groups."""

import math
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn

from learners.base import Learner
from learners.context import RunContext
from pocketprune.common.errors import UserError
from pocketprune.training.distributed import rank, world_size


class PruningLearner(Learner):
    """Ends with a pruned network, pruned_model.pt; the network it started with is the row "dense"."""

    stages: ClassVar = {"dense": "dense", "before_finetune": "before fine-tuning", "pruned": "final"}

    def trained_net(self) -> nn.Module:
        """Return the pruned network. Raises UserError where there is none yet."""
        if not self.artifact.exists():
            raise UserError(
                f"--workdir={self.run.workdir}: holds no {self.artifact.name}; prune first (--exec_mode train)"
            )
        return super().trained_net()


def calibration_batches(run: RunContext) -> list[Tensor]:
    """Return shuffled, unaugmented images of the training split, `cp_nb_batches` batches but no image twice.

    Under several processes, this one's part of them.
    """
    data, nb_batches = run.config.data, run.config.channel_pruning.cp_nb_batches
    batches = run.dataset.train.batches(
        data.batch_size // world_size(),
        seed=run.config.run.seed,
        shuffle=True,
        rank=rank(),
        world_size=world_size(),
    )
    return [images.to(run.device) for images, _ in islice(batches, nb_batches)]


def held_out_batches(run: RunContext) -> list[Tensor]:
    """Return images of the validation split, at most `cp_nb_smpls_search`. Under several processes, this one's part."""
    size, wanted = run.config.data.batch_size_eval, run.config.search.cp_nb_smpls_search // world_size()
    batches = run.dataset.val.batches(
        size, seed=run.config.run.seed, shuffle=True, rank=rank(), world_size=world_size()
    )
    found = [images.to(run.device) for images, _ in islice(batches, math.ceil(wanted / size))]
    return [images for images in torch.cat(found)[:wanted].split(size) if len(images)] if found else []
