"""The learners: `LEARNERS`, from name to class, and `create_learner`."""

import torch
from torch import nn

from config import Config
from datasets import Dataset
from learners.base import Learner
from learners.channel.learner import ChannelPruningLearner
from learners.context import RunContext
from learners.full_precision import FullPrecisionLearner
from pocketprune.common.registry import resolve

__all__ = ["LEARNERS", "Learner", "create_learner", "find_learner"]

LEARNERS: dict[str, type[Learner]] = {
    "full-prec": FullPrecisionLearner,
    "channel": ChannelPruningLearner,
}


def find_learner(name: str) -> type[Learner]:
    """Return the learner called `name`, or a person's own as file.py:callable.

    Raises:
        UserError: the name is unknown; the nearest one is told.
    """
    found: type[Learner] = resolve("--learner", name, LEARNERS)  # type: ignore[assignment]
    return found


def create_learner(name: str, *, config: Config, dataset: Dataset, net: nn.Module, device: torch.device) -> Learner:
    """Return the learner called `name` for a data set and a freshly initialised network."""
    return find_learner(name)(RunContext(config, dataset, net, device))
