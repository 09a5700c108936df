"""What a command line names, loaded: a network with its weights, batches of data, a task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.tasks import CLASSIFICATION, Task, classification
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.common.registry import blaming, load_callable
from pocketprune.deploy import state_dict


@dataclass(frozen=True)
class Data:
    """The data of a command, on the device.

    Attributes:
        batches: inputs of the network.
        task: what it is for.
        measured_on: what the task's metric is taken on, in words.
    """

    batches: list[ExampleInputs]
    task: Task
    measured_on: str


def device_named(name: str) -> torch.device:
    """Return the device of a name; "auto" takes the GPU if there is one. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device={name}: not available here ({str(error).splitlines()[0]})") from error
    return device


def load_net(spec: str, weights: str | None, device: torch.device) -> nn.Module:
    """Return the network that `file.py:callable` builds, with weights from a file where one is given.

    Args:
        spec: the callable takes no arguments and returns a torch.nn.Module.
        weights: a state dict, or what this library saved, which may be pruned.
        device: where it is put.

    Raises:
        UserError: the file, the callable or the weights are not what they should be.
    """
    with blaming(f"--net={spec}"):
        net = load_callable("--net", spec)()
    if not isinstance(net, nn.Module):
        raise UserError(f"--net={spec}: returned {type(net).__name__}; a torch.nn.Module is accepted")
    if weights is not None:
        net = state_dict.load_net(net, Path(weights), source=f"--weights={weights}")
    return net.eval().to(device)


def load_data(data: str | None, task: str | None, most: int, device: torch.device) -> Data:
    """Return batches of inputs, and the task that they are for.

    Args:
        data: `file.py:callable`, which returns batches: a DataLoader, a list, a generator. A batch is a tensor, a tuple
            of arguments, a dict of keyword arguments, or for a classifier a pair of images and integer labels.
        task: `file.py:callable`, which returns a Task; "classification"; None: that where there are labels, else the
            divergence from the dense network.
        most: batches that are read at most.
        device: where they are put.

    Raises:
        UserError: one of them is missing, or not of such a kind.
    """
    own = load_task(task) if task not in (None, CLASSIFICATION) else None
    if data is not None:
        source, read = f"--data={data}", load_callable("--data", data)
    elif own is not None and own.batches is not None:
        source, read = f"--task={task}", own.batches
    else:
        raise UserError("--data: none given; file.py:callable that returns batches of inputs is accepted")
    with blaming(source):
        found = read()
        if isinstance(found, (Tensor, str, dict)) or not isinstance(found, Iterable):
            raise UserError(f"{source}: returned {type(found).__name__}; a list or loader of batches is accepted")
        batches = [pytree.tree_map_only(Tensor, lambda t: t.to(device), batch) for batch in islice(found, most)]
    if not batches:
        raise UserError(f"{source}: gave no batch; one or more is accepted")
    if own is not None:
        return Data(batches, own, "the task's own data")
    if all(map(_is_labelled, batches)):
        held_out = [(x, labels) for x, labels in Calibration(batches).held_out()]
        return Data([batch[0] for batch in batches], classification(held_out), "a fifth of the images, held out")
    if task == CLASSIFICATION:
        raise UserError(f"{source}: its batches are no pairs of images and integer labels, which --task={task} needs")
    return Data(batches, Task(), "a fifth of the inputs, held out")


def load_task(spec: str) -> Task:
    """Return the task that `file.py:callable` returns. Raises UserError for anything else."""
    with blaming(f"--task={spec}"):
        task = load_callable("--task", spec)()
    if not isinstance(task, Task):
        raise UserError(f"--task={spec}: returned {type(task).__name__}; a pocketprune.Task is accepted")
    return task


def _is_labelled(batch: Any) -> bool:
    """Return whether a batch is a pair of images and a whole number for each."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
        return False
    images, labels = batch
    return images.dim() > 1 and labels.dim() == 1 and len(labels) == len(images) and not labels.is_floating_point()
