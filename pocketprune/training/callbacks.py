"""What a method adds to a training without touching the loop: masks, schedules, penalties, another forward.

A callback knows nothing of the loop that calls it. Each moment hands it a `TrainContext`, which anyone's own loop can
make too:

    callbacks = CallbackList([MovingAverage(0.999)])
    context = TrainContext(net, optimizer, device, total=epochs * len(loader), per_epoch=len(loader))
    callbacks.on_start(context)
    for step, (images, labels) in enumerate(batches):
        callbacks.before_step(replace(context, step=step))
        ...
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.common.errors import UserError


@dataclass(frozen=True)
class TrainContext:
    """A training at one moment.

    Attributes:
        net: the network as it is trained, on `device`, without the wrappers of several processes or of a compiler.
        optimizer: of the network's parameters; a callback may read and mask its state.
        device: where the training computes.
        total: steps of the whole training.
        per_epoch: steps in one pass over the data.
        step: steps done so far. Before and during a step it is that step's number, counted from 0.
    """

    net: nn.Module
    optimizer: Optimizer
    device: torch.device
    total: int
    per_epoch: int
    step: int = 0

    @property
    def epoch(self) -> int:
        """Epochs done so far. The last one counts when the training ends, even if it is not a whole one."""
        return math.ceil(self.step / self.per_epoch) if self.finished else self.step // self.per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total


class Callback:
    """Something that takes part in a training. Every method does nothing unless a subclass says otherwise.

    The moments of one training, in their order:

        on_start
        (load_state_dict)       of a resumed training
        for every step:
            before_step         before the forward
            penalty             after the forward and the objective's loss
            after_backward      the gradients lie in the parameters
            after_step          the weights have changed
            (on_epoch)          after the last step of an epoch
            (state_dict)        where a checkpoint is saved
        on_end

    Several callbacks are called in the order in which they were given, `on_end` in the reverse one. Under several
    processes every process calls all of them. What they do to the network must then be the same in each process, as
    the loop shares only gradients, and so must be what `state_dict` returns, as only the first process saves it. A
    resumed training equals an uninterrupted one if the weights, the optimizer, the global random generators and
    `state_dict` are all that a callback depends on.

    Attributes:
        name: the key of the callback's state in a checkpoint, unique in a training. Empty stands for the class's name.
    """

    name: str = ""

    def on_start(self, context: TrainContext) -> None:
        """Prepare once, before the first step of this process. This is the place for a change of the forward.

        The network may get forward hooks, parametrisations or parameters here, and the optimizer new groups for them.
        A resumed training calls this too, with `context.step` 0; the saved weights, optimizer state and callback state
        are loaded after it.
        """

    def before_step(self, context: TrainContext) -> None:
        """Act before the forward of a step: schedules, masks on weights. The learning rate is set already."""

    def penalty(self, context: TrainContext) -> Tensor | None:
        """Return a scalar that is added to the objective's loss before backward; None adds nothing.

        It is computed in full precision. The recorded loss includes it.
        """

    def after_backward(self, context: TrainContext) -> None:
        """Act between backward and the optimizer: this is the only moment that sees the gradients.

        They are averaged over the processes and not yet clipped, so that a gradient masked here counts in no norm.
        """

    def after_step(self, context: TrainContext) -> None:
        """Act after the optimizer's step, which is now counted: masks put back on weights and optimizer state."""

    def on_epoch(self, context: TrainContext) -> None:
        """Act after an epoch, and after the last step. The loop returns the network to training mode afterwards."""

    def on_end(self, context: TrainContext) -> None:
        """Undo what `on_start` did to the network, and leave in it what the training should end with.

        A training that stops early calls this too, with `context.finished` False. The processes may then no longer
        reach each other.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: tensors, primitives, and lists, tuples and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back, after `on_start`, what `state_dict` returned. Its tensors lie on the CPU."""


class CallbackList(Callback):
    """Several callbacks as one.

    Args:
        callbacks: in the order in which they are called.

    Raises:
        UserError: two of them have the same name.
    """

    name = "callbacks"

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.by_name: dict[str, Callback] = {}
        for callback in callbacks:
            name = callback.name or type(callback).__name__
            if name in self.by_name:
                raise UserError(f"two are named {name!r}; give one of them another name", argument="callbacks")
            self.by_name[name] = callback

    def on_start(self, context: TrainContext) -> None:
        """Start all. If one fails, those that have started are ended."""
        with ExitStack() as started:
            for callback in self.by_name.values():
                callback.on_start(context)
                started.callback(callback.on_end, context)
            started.pop_all()

    def before_step(self, context: TrainContext) -> None:
        """Call all, in order."""
        for callback in self.by_name.values():
            callback.before_step(context)

    def penalty(self, context: TrainContext) -> Tensor | None:
        """Return the sum of all penalties; None where there is none."""
        penalties = [callback.penalty(context) for callback in self.by_name.values()]
        present = [penalty for penalty in penalties if penalty is not None]
        return reduce(torch.add, present) if present else None

    def after_backward(self, context: TrainContext) -> None:
        """Call all, in order."""
        for callback in self.by_name.values():
            callback.after_backward(context)

    def after_step(self, context: TrainContext) -> None:
        """Call all, in order."""
        for callback in self.by_name.values():
            callback.after_step(context)

    def on_epoch(self, context: TrainContext) -> None:
        """Call all, in order."""
        for callback in self.by_name.values():
            callback.on_epoch(context)

    def on_end(self, context: TrainContext) -> None:
        """End all, the last one first, even if one fails."""
        with ExitStack() as started:
            for callback in self.by_name.values():
                started.callback(callback.on_end, context)

    def state_dict(self) -> dict[str, Any]:
        """Return name -> state of each callback."""
        return {name: callback.state_dict() for name, callback in self.by_name.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each callback the state saved under its name."""
        for name, callback in self.by_name.items():
            callback.load_state_dict(state[name])
