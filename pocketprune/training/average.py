"""The exponential moving average of a network's weights and statistics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pocketprune.common.errors import UserError
from pocketprune.training.callbacks import Callback, TrainContext


class MovingAverage(Callback):
    """A callback that averages the parameters and float buffers: average = decay x average + (1 - decay) x network.

    It does so after every step; the first step copies. The network ends with the averaged tensors and with its own
    integer buffers. The arithmetic is that of torch.optim.swa_utils. AveragedModel is not used because it keeps its
    count in a CPU tensor that it sends to the device at every update, and the host waits for that each time.

    Args:
        decay: in [0, 1); 0 ends with the network itself.

    Raises:
        UserError: the decay is out of its range.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"{decay} given; it must lie in [0, 1)", argument="decay")
        self._rule = get_ema_multi_avg_fn(decay)

    def on_start(self, context: TrainContext) -> None:
        """Make room for the averages."""
        self.updates = 0
        tensors = (*context.net.named_parameters(), *context.net.named_buffers())
        self._of_net = {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
        self._averages = {name: tensor.detach().clone() for name, tensor in self._of_net.items()}

    def after_step(self, context: TrainContext) -> None:
        """Add the network's new tensors to the averages."""
        rule = self._rule if self.updates else get_ema_multi_avg_fn(0.0)
        rule(list(self._averages.values()), list(self._of_net.values()), self.updates)
        self.updates += 1

    def on_end(self, context: TrainContext) -> None:
        """Leave the averages in the network, if the training is finished."""
        if context.finished:
            self._swap()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged tensors, inside, and return its own ones after that."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._averages.items():
            own = self._of_net[name].clone()
            self._of_net[name].copy_(average)
            average.copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by name, and the number of updates."""
        return {"updates": self.updates, "averages": self._averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.updates = state["updates"]
        saved: dict[str, Tensor] = state["averages"]
        for name, average in self._averages.items():
            average.copy_(saved[name])
