"""Measuring the statistics of batch norms again."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pocketprune.common.errors import UserError
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

    Raises:
        UserError: no process has a batch.
    """
    batches = iter(batches)
    first = next(batches, None)
    has = torch.tensor(float(first is not None))
    if not (all_reduce_sum(has) if together else has):
        raise UserError("empty; at least one batch is needed", argument="batches")
    norms = list(_norms(net).values())
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
            for batch in () if first is None else chain((first,), batches):
                called(net, batch)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if together:
        _average_over_processes(norms, count)
    return len(norms)


@torch.no_grad()
def shift_batch_norm(
    net: nn.Module,
    dense: nn.Module,
    batches: Iterable[ExampleInputs],
    kept: Mapping[str, Sequence[int]] | None = None,
    *,
    together: bool = True,
) -> int:
    """Replace the running statistics of a pruned network by the dense one's, shifted by what pruning changed, in place.

    Both networks are measured on the same images. A mean is shifted by the difference of the two measured ones, a
    variance by their ratio, so that it stays positive. What the images have in particular cancels out, and what the
    dense network knows from its whole training stays. The dense statistics must be those of its weights.

    Args:
        net: the pruned network.
        dense: the network that it was made of; it is not changed.
        batches: inputs. Under several processes each brings its own.
        kept: name of a batch norm in `net` -> the channels of the dense network's one of that name that it has left.
            One that is not named has all of them. One without a counterpart is measured anew and not shifted.
        together: as in `reestimate_batch_norm`.

    Returns:
        The number of batch norms. If it is 0, nothing has changed.
    """
    batches = list(batches)
    return apply_shifts(net, shifts_of(dense, batches, together=together), batches, kept, together=together)


Shifts = dict[str, tuple[Tensor, Tensor]]
"""Name of a batch norm -> what to add to a measured mean (channels,), and by what to multiply a measured variance."""


def shifts_of(dense: nn.Module, batches: Iterable[ExampleInputs], *, together: bool = True) -> Shifts:
    """Return by how much a dense network's statistics differ from those of these images. See `shift_batch_norm`."""
    known, measured = _statistics(dense), copy.deepcopy(dense)
    reestimate_batch_norm(measured, batches, together=together)
    of_images = _statistics(measured)
    return {
        name: (mean - of_images[name][0], var / of_images[name][1].clamp_min(torch.finfo(var.dtype).tiny))
        for name, (mean, var) in known.items()
    }


@torch.no_grad()
def apply_shifts(
    net: nn.Module,
    shifts: Shifts,
    batches: Iterable[ExampleInputs],
    kept: Mapping[str, Sequence[int]] | None = None,
    *,
    together: bool = True,
) -> int:
    """Measure the statistics of a pruned network and shift them. `shift_batch_norm` says what the arguments are."""
    count = reestimate_batch_norm(net, batches, together=together)
    for name, (mean, var) in _statistics(net).items():
        if name in shifts:
            chosen = slice(None) if kept is None or name not in kept else list(kept[name])
            difference, ratio = shifts[name]
            mean += difference[chosen]
            var *= ratio[chosen]
    return count


def _norms(net: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms that track their statistics, by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}


def _statistics(net: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the running mean and variance of each batch norm, by name."""
    found = {}
    for name, norm in _norms(net).items():
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None, "it tracks its statistics"
        assert var is not None, "likewise"
        found[name] = (mean, var)
    return found


def _average_over_processes(norms: list[_BatchNorm], count: Tensor) -> None:
    """Average the statistics over the batches of all processes; `count` is the number of this one's batches."""
    total = float(all_reduce_sum(count.clone()))
    for statistic in (s for norm in norms for s in (norm.running_mean, norm.running_var)):
        assert statistic is not None  # only batch norms that track their statistics are here
        mean = all_reduce_sum(statistic.double() * float(count)) / total
        statistic.copy_(mean)
