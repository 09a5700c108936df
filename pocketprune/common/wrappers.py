"""Networks inside the wrappers that run them elsewhere or faster."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network inside torch.compile's or data parallelism's wrappers; one without them as it is."""
    while not isinstance(net, torch.jit.ScriptModule):
        inner = net._modules.get("_orig_mod")
        if isinstance(net, (nn.DataParallel, DistributedDataParallel)):
            inner = net.module
        if inner is None:
            return net
        net = inner
    return net
