"""The learners: `LEARNERS`, from name to class, and `create_learner`."""

from typing import Any

import torch
from torch import nn

from config import Config
from datasets import Dataset
from learners.base import Learner
from learners.channel.discriminating import DiscriminatingLearner
from learners.channel.learner import ChannelPruningLearner
from learners.checks import refuse_unfit
from learners.context import RunContext
from learners.filter.learner import FilterPruningLearner
from learners.full_precision import FullPrecisionLearner
from learners.quantized.learner import QuantizationLearner, quantized_after
from learners.quantized.simulated import NonUniformLearner, UniformLearner
from learners.sparse.auto_compress import AutoCompressLearner
from learners.sparse.learner import SparseLearner
from learners.sparse.weight_sparse import WeightSparseLearner
from pocketprune.channel_pruning.tasks import CLASSIFICATION, Task
from pocketprune.cli.loading import load_task
from pocketprune.common.errors import UserError
from pocketprune.common.registry import resolve

__all__ = ["LEARNERS", "Learner", "create_learner", "find_learner"]

LEARNERS: dict[str, type[Learner]] = {
    "full-prec": FullPrecisionLearner,
    "channel": ChannelPruningLearner,
    "dis-chn-pruned": DiscriminatingLearner,
    "filter": FilterPruningLearner,
    "sparse": SparseLearner,
    "weight-sparse": WeightSparseLearner,
    "auto-compress": AutoCompressLearner,
    "quant": QuantizationLearner,
    "uniform": UniformLearner,
    "non-uniform": NonUniformLearner,
}


def find_learner(name: str) -> type[Learner]:
    """Return the learner called `name`, or a person's own as file.py:class.

    Raises:
        UserError: the name is unknown, and the nearest one is told, or it is of no complete subclass of Learner.
    """
    found: Any = resolve("--learner", name, LEARNERS)
    if not isinstance(found, type) or not issubclass(found, Learner):
        raise UserError(f"--learner={name}: a {type(found).__name__}; accepted: a subclass of learners.Learner")
    missing = ", ".join(sorted(found.__abstractmethods__))
    if missing:
        raise UserError(f"--learner={name}: has no {missing}; a subclass of learners.Learner defines it")
    return found


def create_learner(name: str, *, config: Config, dataset: Dataset, net: nn.Module, device: torch.device) -> Learner:
    """Return the learner called `name` for a data set and a freshly initialised network.

    Raises:
        UserError: the name is unknown, the network does not fit the data, a batch is larger than the memory, or the
            task is none, or one that the learner does not take.
    """
    kind, task = find_learner(name), _own_task(name, config.run.task)
    refuse_unfit(config, dataset, net.to(device), device)
    run = RunContext(config, dataset, net, device, task)
    if config.quantization.enbl_quant and not issubclass(kind, QuantizationLearner):
        kind = quantized_after(name, kind)
    return kind(run)


def _own_task(learner: str, spec: str) -> Task | None:
    """Return a person's own task; None for the built-in one."""
    if spec == CLASSIFICATION:
        return None
    if learner != "channel":
        raise UserError(f"--task={spec}: --learner={learner} takes {CLASSIFICATION} alone; --learner=channel takes any")
    return load_task(spec)
