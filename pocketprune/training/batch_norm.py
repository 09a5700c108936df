"""Measuring the statistics of batch norms again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pocketprune.common.inputs import ExampleInputs, called
from pocketprune.common.modes import evaluation_mode
from pocketprune.training.distributed import all_reduce_sum


@torch.no_grad()
def reestimate_batch_norm(net: nn.Module, batches: Iterable[ExampleInputs], *, together: bool = True) -> int:
    """Replace the running statistics of all batch norms by their averages over the batches, in place.

    The rest of the network is in evaluation mode meanwhile (no dropout).

    Args:
        net: the network.
        batches: its inputs. Under several processes each brings its own.
        together: whether the averages are taken over the batches of all processes; False where each process has a
            network of its own.

    Returns:
        The number of batch norms. If it is 0, nothing has changed.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    count = torch.zeros((), dtype=torch.float64)
    with evaluation_mode(net):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over the batches
            norm.train()
        try:
            for batch in batches:
                called(net, batch)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if together:
        _average_over_processes(norms, count)
    return len(norms)


def _average_over_processes(norms: list[_BatchNorm], count: Tensor) -> None:
    """Average the statistics over the batches of all processes; `count` is the number of this one's batches."""
    total = float(all_reduce_sum(count.clone()))
    for statistic in (s for norm in norms for s in (norm.running_mean, norm.running_var)):
        assert statistic is not None  # only batch norms that track their statistics are here
        mean = all_reduce_sum(statistic.double() * float(count)) / total
        statistic.copy_(mean)
