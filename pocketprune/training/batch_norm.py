"""Batch-norm statistics measured again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pocketprune.common.modes import evaluation_mode
from pocketprune.training.distributed import all_reduce_sum


@torch.no_grad()
def reestimate_batch_norm(net: nn.Module, batches: Iterable[Tensor], *, together: bool = True) -> int:
    """Replace the running statistics of all batch norms by their averages over the batches, in place.

    All else of the network is in evaluation mode meanwhile (no dropout).

    Args:
        together: under several processes each brings its own batches, and the averages are taken over all of them;
            False where each has a network of its own.

    Returns:
        How many layers were re-estimated; 0 changes nothing.
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
                net(batch)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if together:
        _average_over_processes(norms, count)
    return len(norms)


def _average_over_processes(norms: list[_BatchNorm], count: Tensor) -> None:
    """Average over all processes' batches, of which this one had `count`."""
    total = float(all_reduce_sum(count.clone()))
    for statistic in (s for norm in norms for s in (norm.running_mean, norm.running_var)):
        mean = all_reduce_sum(statistic.double() * float(count)) / total
        statistic.copy_(mean)
