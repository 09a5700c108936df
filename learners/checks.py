"""What can be known to fail before any work is done."""

import math
import os
from typing import Any

import torch
from torch import nn

from config import Config
from datasets import Dataset
from nets import NETS, check_outputs
from pocketprune.channel_pruning.tasks import CLASSIFICATION
from pocketprune.common.errors import UserError

BATCHES = ("batch_size", "batch_size_eval", "latency_batch")


def refuse_unfit(config: Config, dataset: Dataset, net: nn.Module, device: torch.device) -> None:
    """Raise UserError for a person's own network that does not fit the data, and for batches beyond the memory."""
    memory = _memory(device)
    flags: dict[str, Any] = config.as_dict()
    for name in BATCHES:
        needed = 4 * math.prod(dataset.input_shape) * flags[name]
        if needed > memory:
            sizes = f"its images alone take {needed / 1e9:,.0f} GB, and {device} has {memory / 1e9:,.0f}"
            raise UserError(f"--{name}={flags[name]}: {sizes}")
    if config.net.net in NETS or config.run.task != CLASSIFICATION:  # a task's networks may return anything
        return
    source = f"--net={config.net.net}"
    images, _ = next(iter(dataset.val.batches(2)))
    classes = check_outputs(net, images.to(device), source)
    if classes < dataset.num_classes:
        raise UserError(
            f"{source}: its outputs tell {classes} classes apart, and the data set has {dataset.num_classes}"
        )


def _memory(device: torch.device) -> int:
    """Return how many bytes a device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
