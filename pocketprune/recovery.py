"""Recovery without labels, between the closed form and fine-tuning: block by block, by gradient."""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from pocketprune.errors import UserError
from pocketprune.modes import evaluation_mode
from pocketprune.segments import Segment, find_segments, output_at
from pocketprune.training.distributed import all_reduce_sum, world_size


@dataclass(frozen=True)
class BlockResult:
    """One block's error against the dense network's, relative to its variance, on inputs not trained on."""

    name: str
    error_before: float
    error_after: float


def reconstruct_blocks(net: nn.Module, dense: nn.Module, batches: Sequence[Tensor], *, steps: int = 200,
                       lrn_rate: float = 1e-3, progress: Callable[[str, int, int], None] | None = None
                       ) -> list[BlockResult]:
    """Train a pruned network, in place, block by block, towards the outputs of the dense network's blocks.

    A block ends where both networks have a module of the same name whose outputs have equal shapes: after each
    residual block or, where the network has no such modules, after every other layer or so; in the end it is the whole
    network's output. In forward order each block's parameters take `steps` Adam steps (the rate falls to 0 by half a
    cosine) on the mean squared difference, on inputs as the blocks before leave them. Batch norms keep their
    statistics. Parameters that do not lower the error on the last fifth of the batches are put back.

    Under several processes each brings its own batches; gradients and errors are averaged.

    Raises:
        UserError: fewer than one step, or no batch.
    """
    if steps < 1:
        raise UserError(f"steps: {steps} given; 1 or more is accepted")
    if not batches:
        raise UserError("batches: empty; at least one is needed")
    results = []
    held = max(1, len(batches) // 5) if len(batches) > 1 else 0
    fit, judge = batches[:len(batches) - held], batches[len(batches) - held:] or batches
    with evaluation_mode(net), evaluation_mode(dense):
        segments = find_segments(net, dense, batches[0][:2])
        for number, segment in enumerate(segments):
            if progress is not None:
                progress(f"reconstructing {segment.name or 'the output'}", number, len(segments))
            results.append(_reconstruct(net, dense, segment, fit, judge, steps, lrn_rate))
    return results


def _reconstruct(net: nn.Module, dense: nn.Module, segment: Segment, fit: Sequence[Tensor], judge: Sequence[Tensor],
                 steps: int, lrn_rate: float) -> BlockResult:
    """Train one block's parameters alone, and keep what lowers its error."""
    before = _error(net, dense, segment.name, judge)
    wanted = {id(p) for p in segment.parameters}
    flags = [(p, p.requires_grad) for p in net.parameters()]
    old = copy.deepcopy([p.detach() for p in segment.parameters])
    for parameter, _ in flags:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        with torch.enable_grad():
            _descend(net, dense, segment, fit, steps, lrn_rate)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
    after = _error(net, dense, segment.name, judge)
    if not after < before:
        with torch.no_grad():
            for parameter, value in zip(segment.parameters, old, strict=True):
                parameter.copy_(value)
        after = before
    return BlockResult(segment.name, before, after)


def _descend(net: nn.Module, dense: nn.Module, segment: Segment, batches: Sequence[Tensor], steps: int,
             lrn_rate: float) -> None:
    optimizer = torch.optim.Adam(segment.parameters, lrn_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for batch in islice(cycle(batches), steps):
        with torch.no_grad():
            target = output_at(dense, segment.name, batch)
        optimizer.zero_grad()
        (output_at(net, segment.name, batch) - target).square().mean().backward()
        if world_size() > 1:
            for parameter in segment.parameters:
                if parameter.grad is not None:
                    all_reduce_sum(parameter.grad).div_(world_size())
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _error(net: nn.Module, dense: nn.Module, name: str, batches: Sequence[Tensor]) -> float:
    """Squared difference of the block's outputs over the dense outputs' variance."""
    sums = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        target = output_at(dense, name, batch).double()
        miss = (output_at(net, name, batch) - target).square().sum()
        parts = (miss, target.square().sum(), target.sum(), torch.tensor(target.numel()))
        sums += torch.stack([part.double().cpu() for part in parts])
    miss, squares, total, count = all_reduce_sum(sums).tolist()
    variance = squares - total * total / count
    return miss / variance if variance > 0 else 0.0
