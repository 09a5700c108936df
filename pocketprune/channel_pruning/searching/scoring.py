"""Scores of networks: from their predictions on held-out images, or from a caller's own measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketprune.channel_pruning.tasks import Task
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs, called
from pocketprune.graph.tracing import batch_of
from pocketprune.search.interface import Score

LEAST = 50  # images; fewer say nothing about accuracy
LEAST_OF_TASK = 4  # inputs of a task of one's own; one image of a map holds thousands of places


class HeldOut:
    """Held-out images on which networks are scored, with the dense network's predictions.

    Args:
        dense: the dense network.
        batches: images (m, C, H, W), or pairs of images and labels (m,). Without labels, the dense network's
            predictions take their place, and accuracy is the agreement with it.

    Raises:
        UserError: fewer than 50 images.
    """

    def __init__(self, dense: nn.Module, batches: Iterable[Tensor | tuple[Tensor, Tensor]]) -> None:
        given = [_pair(batch, number) for number, batch in enumerate(batches)]
        images = sum(len(x) for x, _ in given)
        if images < LEAST:
            raise UserError(
                f"{images} images given; a search needs {LEAST} or more to tell networks apart", argument="held_out"
            )
        self._expected = [dense(x.clone()).float().log_softmax(1) for x, _ in given]
        self._batches = [
            (x, expected.argmax(1) if labels is None else labels)
            for (x, labels), expected in zip(given, self._expected, strict=True)
        ]

    def images(self) -> list[Tensor]:
        """Return the images, in batches."""
        return [x for x, _ in self._batches]

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> Score:
        """Return the score of a network in evaluation mode."""
        correct = loss = divergence = images = 0.0
        for (x, labels), expected in zip(self._batches, self._expected, strict=True):
            found = net(x.clone()).float().log_softmax(1)  # a network may work in place
            correct += float((found.argmax(1) == labels).sum())
            loss += float(functional.nll_loss(found, labels, reduction="sum"))
            divergence += float(functional.kl_div(found, expected, reduction="sum", log_target=True))
            images += len(labels)
        return Score(correct / images, loss / images, divergence / images)


class Measure:
    """A caller's own measure of a network, such as a mean average precision. Higher is better.

    Args:
        dense: the dense network.
        evaluate: a function of a network in evaluation mode that returns a number.

    Raises:
        UserError: the dense network's value is no finite number.
    """

    def __init__(self, dense: nn.Module, evaluate: Callable[[nn.Module], float]) -> None:
        self._evaluate = evaluate
        self._dense = self._value(dense)
        if not math.isfinite(self._dense):
            raise UserError(
                f"gave {self._dense} for the dense network; a finite number is accepted", argument="held_out"
            )

    def images(self) -> list[Tensor]:
        """Return no images: only the caller knows them."""
        return []

    def judge(self, net: nn.Module) -> Score:
        """Return the measure as accuracy, and its distance below that of the dense network as divergence."""
        value = self._value(net)
        return Score(value, -value, self._dense - value)

    @torch.no_grad()
    def _value(self, net: nn.Module) -> float:
        value = self._evaluate(net)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"gave {type(value).__name__}; a number is accepted", argument="held_out") from error


class OnTask:
    """A task's own measures: its metric, and its divergence from the dense network on held-out inputs.

    Args:
        dense: the dense network.
        task: what it is for.
        batches: held-out inputs of any kind.

    Raises:
        UserError: too few inputs, or a measure that gives no finite number for the dense network.
    """

    def __init__(self, dense: nn.Module, task: Task, batches: Iterable[ExampleInputs]) -> None:
        self._task = task
        self._examples = [(batch, called(dense, batch)) for batch in batches]
        inputs = sum(batch_of(batch) for batch, _ in self._examples)
        if inputs < LEAST_OF_TASK:
            raise UserError(
                f"{inputs} inputs given; a search needs {LEAST_OF_TASK} or more to tell networks apart",
                argument="held_out",
            )
        self._score(dense)

    def images(self) -> list[ExampleInputs]:
        """Return the inputs, in batches."""
        return [batch for batch, _ in self._examples]

    def judge(self, net: nn.Module) -> Score:
        """Return the metric as accuracy, and the divergence; without a metric, minus the divergence as both."""
        return self._score(net)

    def _score(self, net: nn.Module) -> Score:
        divergence = self._task.distance_from(net, self._examples)
        return Score(-divergence if self._task.metric is None else self._task.measure(net), divergence, divergence)


@dataclass(frozen=True)
class TaskInputs:
    """A task with the held-out inputs that its divergence is taken on."""

    task: Task
    batches: Sequence[ExampleInputs]


def judge_of(dense: nn.Module, held_out: Any) -> HeldOut | Measure | OnTask:
    """Return a judge: of a task, or a `Measure` for a function of a network, else the `HeldOut` images."""
    if isinstance(held_out, TaskInputs):
        return OnTask(dense, held_out.task, held_out.batches)
    return Measure(dense, held_out) if callable(held_out) else HeldOut(dense, held_out)


def _pair(batch: Any, number: int) -> tuple[Tensor, Tensor | None]:
    """Return a batch as images and labels, or None without labels."""
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1]
    raise UserError(
        f"{type(batch).__name__} given; a tensor of images, or a pair of images and labels, is accepted",
        argument=f"held_out[{number}]",
    )
