"""The network inside what torch wraps around one to run it faster or on several devices."""

from __future__ import annotations

from torch import nn

DATA_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network inside torch.compile's or data parallelism's wrapper; without one, the network itself."""
    while True:
        inner = net._modules.get("module" if isinstance(net, DATA_PARALLEL) else "_orig_mod")
        if inner is None:
            return net
        net = inner
