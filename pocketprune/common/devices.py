"""Where a network lies."""

import torch
from torch import nn


def device_of(net: nn.Module) -> torch.device:
    """Return the device of the network's first parameter (or buffer); the CPU for a network without any."""
    for tensor in (*net.parameters(), *net.buffers()):
        return tensor.device
    return torch.device("cpu")
