"""A controller of masks on weights as a training callback, for the project's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.sparsity.controller import SparsityController
from pocketprune.training.callbacks import Callback, TrainContext


class SparsityCallback(Callback):
    """Calls a controller at its moments. The masks stay when the training ends."""

    name = "sparsity"

    def __init__(self, controller: SparsityController) -> None:
        self._controller = controller

    def on_start(self, context: TrainContext) -> None:
        """Check that the training is of the controller's network.

        Raises:
            UserError: it is of another one.
        """
        if context.net is not self._controller.net:
            raise UserError("another network given than to sparsify()", argument="net")

    def before_step(self, context: TrainContext) -> None:
        """Choose masks where an epoch begins."""
        if context.step % context.per_epoch == 0:
            self._controller.epoch_step(context.epoch, context.optimizer)

    def after_backward(self, context: TrainContext) -> None:
        """Let hidden weights be trained where masks are live."""
        self._controller.before_optimizer()

    def after_step(self, context: TrainContext) -> None:
        """Put zeros back."""
        self._controller.step(context.optimizer)

    def on_end(self, context: TrainContext) -> None:
        """Mask also what a moving average has left in the network."""
        self._controller.masks.enforce()

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state."""
        return self._controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the controller's state."""
        self._controller.load_state_dict(state)
