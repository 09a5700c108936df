"""A controller of masks on weights as a training callback, for the project's own loop."""

from __future__ import annotations

from pocketprune.compression.callback import MaskCallback
from pocketprune.sparsity.controller import SparsityController
from pocketprune.training.callbacks import TrainContext


class SparsityCallback(MaskCallback[SparsityController]):
    """Adds the moment at which live masks let hidden weights be trained."""

    name = "sparsity"
    door = "sparsify()"

    def after_backward(self, context: TrainContext) -> None:
        """Let hidden weights be trained where masks are live."""
        self._controller.before_optimizer()
