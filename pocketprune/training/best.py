"""The best state of a network during its training, the start included: a training that ends with it never harms."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from pocketprune.common.modes import evaluation_mode
from pocketprune.training.callbacks import Callback, TrainContext
from pocketprune.training.distributed import broadcast_module

Quality = tuple[float, ...]
"""How good a network is: numbers that are compared in order, larger ones being better."""

Judge = Callable[[nn.Module], Quality]
"""A function that measures a network in evaluation mode. Under several processes all must get the same."""


@dataclass(frozen=True)
class Best:
    """What a training ended with.

    Attributes:
        step: steps after which the network was best; 0 is the start.
        epoch: epochs done by then.
        quality: of that state.
        start: quality of the start.
    """

    step: int
    epoch: int
    quality: Quality
    start: Quality


class BestState(Callback):
    """A callback that measures the network at the start and after each epoch, and leaves the best state in it.

    Of equally good states the earliest is kept. A measured NaN is never better.

    Args:
        judge: measures the network.
        shown: a context in which the network has the tensors to be measured, such as averaged ones.
    """

    def __init__(self, judge: Judge, shown: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._judge, self._shown = judge, shown

    def on_start(self, context: TrainContext) -> None:
        """Forget an earlier training."""
        self.best: Best | None = None
        self._tensors: dict[str, Any] = {}

    def before_step(self, context: TrainContext) -> None:
        """Measure the start."""
        if context.step == 0:
            self._measure(context)

    def on_epoch(self, context: TrainContext) -> None:
        """Measure the network. Keep its state if it is the best so far."""
        self._measure(context)

    def on_end(self, context: TrainContext) -> None:
        """Leave the best state in the network, if the training is finished."""
        if context.finished:
            context.net.load_state_dict(self._tensors)

    def _measure(self, context: TrainContext) -> None:
        with self._shown(), evaluation_mode(context.net):
            broadcast_module(context.net)  # each process has batch-norm statistics of its own; the first one's remain
            quality = self._judge(context.net)
            start = quality if self.best is None else self.best.start
            if self.best is None or quality > self.best.quality:
                self.best = Best(context.step, context.epoch, quality, start)
                self._tensors = {name: tensor.clone() for name, tensor in context.net.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the best state and what was measured of it."""
        best = self.best
        found = {} if best is None else {name: getattr(best, name) for name in ("step", "epoch", "quality", "start")}
        return {"best": found, "tensors": self._tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        found = state["best"]
        self.best = Best(found["step"], found["epoch"], tuple(found["quality"]), tuple(found["start"]))
        self._tensors = dict(state["tensors"])
