"""A controller as a training callback, for the project's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.compression.controller import Controller
from pocketprune.compression.scheduled import ScheduledController
from pocketprune.training.callbacks import Callback, TrainContext

Masking = TypeVar("Masking", bound=ScheduledController)


def callback(controller: Controller) -> Callback:
    """Return the callback that carries out a controller's policy in a training of its network."""
    return _Compression(controller)


class MaskCallback(Callback, Generic[Masking]):
    """Calls a controller at its moments. The masks stay when the training ends.

    Attributes:
        door: the function that made the controller, for messages.
    """

    door: ClassVar[str]

    def __init__(self, controller: Masking) -> None:
        self._controller = controller

    def on_start(self, context: TrainContext) -> None:
        """Check that the training is of the controller's network.

        Raises:
            UserError: it is of another one.
        """
        if context.net is not self._controller.net:
            raise UserError(f"another network given than to {self.door}", argument="net")

    def before_step(self, context: TrainContext) -> None:
        """Choose masks where an epoch begins."""
        if context.step % context.per_epoch == 0:
            self._controller.epoch_step(context.epoch, context.optimizer)

    def after_step(self, context: TrainContext) -> None:
        """Put zeros back."""
        self._controller.step(context.optimizer)

    def on_end(self, context: TrainContext) -> None:
        """Mask also what a moving average has left in the network."""
        self._controller.enforce()

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state."""
        return self._controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the controller's state."""
        self._controller.load_state_dict(state)


class _Compression(MaskCallback[Controller]):
    """Adds the regularisers of masks on channels."""

    name = "compression"
    door = "compress()"

    def penalty(self, context: TrainContext) -> Tensor | None:
        """Return the regularisers' penalties."""
        return self._controller.loss() if self._controller.has_penalty else None
