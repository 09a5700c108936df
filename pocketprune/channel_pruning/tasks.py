"""What a network is for, as three functions: its inputs, how far its outputs are from another's, how good it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs, called
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.numerics.divergence import class_divergence, output_divergence

CLASSIFICATION = "classification"
"""The name of the built-in task on command lines."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network is for. Nothing is assumed of its inputs and outputs but what these functions say.

    Attributes:
        metric: how good a network in evaluation mode is, as a number; higher is better. None: only the divergence
            compares networks.
        name: of the metric, in reports.
        divergence: (a network's outputs, the dense network's on the same inputs) -> a number, 0 where they agree.
        batches: batches of training inputs for a network: tensors, tuples of arguments or dicts of keyword arguments.
            A command line takes its inputs from here; calls from Python are given theirs.
    """

    metric: Callable[[nn.Module], float] | None = None
    name: str = "metric"
    divergence: Callable[[Any, Any], float | Tensor] = output_divergence
    batches: Callable[[], Iterable[ExampleInputs]] | None = None

    def __post_init__(self) -> None:
        for name in ("metric", "divergence", "batches"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise UserError(f"{type(function).__name__} given; a function is accepted", argument=f"task.{name}")

    @torch.no_grad()
    def measure(self, net: nn.Module) -> float:
        """Return the metric of a network, which stays as it is.

        Raises:
            UserError: there is no metric, or it gives no finite number.
        """
        if self.metric is None:
            raise UserError("None given; a function of a network is accepted", argument="task.metric")
        with untouched(net), evaluation_mode(net):
            value = self.metric(net)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"gave {type(value).__name__} for a network; a number is accepted", argument="task.metric"
            ) from error
        if not math.isfinite(number):
            raise UserError(f"gave {number} for a network; a finite number is accepted", argument="task.metric")
        return number

    @torch.no_grad()
    def distance(self, net: nn.Module, dense: nn.Module, batches: Iterable[ExampleInputs]) -> float:
        """Return the mean divergence of a network from the dense one over batches; infinity for a NaN."""
        with untouched(net), evaluation_mode(net), untouched(dense), evaluation_mode(dense):
            return self.distance_from(net, [(batch, called(dense, batch)) for batch in batches])

    @torch.no_grad()
    def distance_from(self, net: nn.Module, examples: Sequence[tuple[ExampleInputs, Any]]) -> float:
        """Return the mean divergence of a network in evaluation mode over (inputs, expected outputs)."""
        values = [self._divergence(called(net, inputs), expected) for inputs, expected in examples]
        mean = sum(values) / len(values)
        return math.inf if math.isnan(mean) else mean

    def _divergence(self, found: Any, expected: Any) -> float:
        value = self.divergence(found, expected)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"gave {type(value).__name__}; a number is accepted", argument="task.divergence") from error


def classification(examples: Sequence[tuple[Tensor, Tensor]]) -> Task:
    """Return the task of a classifier: the accuracy on labelled examples.

    Args:
        examples: batches of (inputs, labels (m,)) that are not among the calibration's.
    """

    def accuracy(net: nn.Module) -> float:
        right = sum(int((called(net, x).argmax(1) == labels).sum()) for x, labels in examples)
        return right / sum(len(labels) for _, labels in examples)

    return Task(metric=accuracy, name="accuracy", divergence=class_divergence, batches=lambda: (x for x, _ in examples))
