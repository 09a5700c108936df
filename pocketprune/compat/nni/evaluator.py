"""NNI's `TorchEvaluator` and `nni.trace`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.graph.tracing import ExampleInputs

Made = TypeVar("Made")


def trace(made: Made) -> Made:
    """Return what is given: nothing needs to be traced here (`nni.trace`)."""
    return made


@dataclass
class TorchEvaluator:
    """NNI's `TorchEvaluator`: a training and a judge in one object.

    Attributes:
        training_func: (model, optimizer, criterion, ...).
        optimizers: the optimizer.
        criterion: the loss.
        lr_schedulers: taken for NNI's sake.
        dummy_input: an input.
        evaluating_func: (model) -> a number, or a tuple that begins with one.
    """

    training_func: Callable[..., Any] | None = None
    optimizers: Any = None
    criterion: Any = None
    lr_schedulers: Any = None
    dummy_input: ExampleInputs | None = None
    evaluating_func: Callable[[nn.Module], Any] | None = None

    def judge(self, net: nn.Module) -> float:
        """Return what the judge says of a network."""
        if self.evaluating_func is None:
            raise UserError("none given; this pruner needs it", argument="evaluating_func")
        found = self.evaluating_func(net)
        return float(found[0] if isinstance(found, (tuple, list)) else found)


def asks_dependency(mode: str, accepted: Sequence[str] = ("normal", "dependency_aware")) -> bool:
    """Return whether a mode is the dependency-aware one. Raises UserError for one that is not accepted."""
    if mode not in accepted:
        raise UserError(f"'{mode}' given; {', '.join(accepted)} are accepted", argument="mode")
    return mode == "dependency_aware"
