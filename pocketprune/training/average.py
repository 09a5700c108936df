"""The exponential moving average of a network's weights and statistics."""

import copy
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """`module` holds average = decay x average + (1 - decay) x network, over parameters and float buffers.

    The first update copies. The arithmetic is torch.optim.swa_utils'; its AveragedModel is not used because it keeps
    its count in a CPU tensor that it sends to the device at every update, and the host waits for that each time.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        counters = {id(buffer): buffer for buffer in net.buffers() if not buffer.is_floating_point()}
        self.module = copy.deepcopy(net, counters).requires_grad_(False)  # counters are shared, not averaged
        self.updates = 0
        self._rule = get_ema_multi_avg_fn(decay)
        self._mine, self._theirs = (
            [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
            for module in (self.module, net)
        )

    def update(self) -> None:
        """Take in the network's present weights."""
        rule = self._rule if self.updates else get_ema_multi_avg_fn(0.0)
        rule(self._mine, self._theirs, self.updates)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])
