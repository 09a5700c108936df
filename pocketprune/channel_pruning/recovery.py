"""Recovery without labels, between the closed form and fine-tuning: by gradients, block by block."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.segments import Segment, find_segments, inputs_at, output_at
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.graph.nodes import tensors_in
from pocketprune.structure.batches import at_batch
from pocketprune.training.distributed import all_reduce_sum, world_size

KEPT_GB = 1.0
"""GiB of feature maps that are kept, for each of the two networks."""


@dataclass(frozen=True)
class BlockResult:
    """One block's error against the dense network, relative to the variance, on inputs that were not trained on."""

    name: str
    error_before: float
    error_after: float


def reconstruct_blocks(
    net: nn.Module,
    dense: nn.Module,
    batches: Sequence[ExampleInputs],
    *,
    steps: int = 200,
    lrn_rate: float = 1e-3,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[BlockResult]:
    """Train a pruned network, in place, block by block, towards the outputs of the dense network's blocks.

    A block ends where both networks have a module of the same name with outputs of equal shapes: after each residual
    block or, without such modules, after about every other layer. The last block ends with the network's output. In
    forward order, each block's parameters take `steps` Adam steps on the mean squared difference, on the inputs that
    the trained blocks before it give. The rate falls to 0 by half a cosine. Batch norms keep their statistics. A block
    whose error on the last fifth of the batches is not lowered gets its old parameters back.

    Under several processes each brings its own batches. Gradients are averaged, errors taken over all batches.

    Args:
        net: the pruned network.
        dense: the network from which it was pruned.
        batches: inputs of both.
        steps: Adam steps for each block.
        lrn_rate: rate at the first of them.
        progress: called with (text, blocks done, blocks in all).

    Returns:
        One result for each block, in forward order.

    Raises:
        UserError: fewer than one step, or no batch.
    """
    if steps < 1:
        raise UserError(f"steps: {steps} given; 1 or more is accepted")
    if not batches:
        raise UserError("batches: empty; at least one is needed")
    results = []
    held = max(1, len(batches) // 5) if len(batches) > 1 else 0
    fit, judge = range(len(batches) - held), range(len(batches) - held if held else 0, len(batches))
    with evaluation_mode(net), untouched(dense), evaluation_mode(dense):
        segments = find_segments(net, dense, at_batch(batches[0], 2))
        for number, segment in enumerate(segments):
            if progress is not None:
                progress(f"reconstructing {segment.name or 'the output'}", number, len(segments))
            block = _Block(net, dense, segment, batches)
            results.append(_reconstruct(block, fit, judge, steps, lrn_rate))
    return results


class _Block:
    """One block of both networks on the batches. What its training does not change is computed once."""

    def __init__(self, net: nn.Module, dense: nn.Module, segment: Segment, batches: Sequence[ExampleInputs]) -> None:
        self.net, self.segment = net, segment
        self.parameters = segment.parameters
        start = segment.name if segment.alone else ""
        self._module = net.get_submodule(start)
        self._inputs = _Remembered(lambda i: inputs_at(net, start, batches[i]))
        self._targets = _Remembered(lambda i: output_at(dense, segment.name, batches[i]))

    def both(self, i: int) -> list[tuple[Tensor, Tensor]]:
        """Return the block's outputs for batch `i`, each with that of the dense network."""
        with torch.no_grad():
            args, kwargs = pytree.tree_map_only(Tensor, torch.clone, self._inputs[i])  # blocks may work in place
            target = self._targets[i]
        if self.segment.alone:
            return _pairs(self._module(*args, **kwargs), target)
        return _pairs(output_at(self.net, self.segment.name, (args, kwargs)), target)


def _pairs(output: Any, target: Any) -> list[tuple[Tensor, Tensor]]:
    """Return the floating-point tensors of two outputs of the same structure, in pairs."""
    pairs = zip(tensors_in(output), tensors_in(target), strict=True)
    return [(one, other) for one, other in pairs if other.is_floating_point()]


class _Remembered:
    """One value per batch, computed at its first use. Values that do not fit in KEPT_GB are computed each time."""

    def __init__(self, compute: Callable[[int], Any]) -> None:
        self._compute, self._bytes = compute, 0
        self._kept: dict[int, Any] = {}

    def __getitem__(self, i: int) -> Any:
        if i in self._kept:
            return self._kept[i]
        value = self._compute(i)
        size = sum(t.numel() * t.element_size() for t in tensors_in(value))
        if self._bytes + size <= KEPT_GB * 2**30:
            self._kept[i] = value
            self._bytes += size
        return value


def _reconstruct(block: _Block, fit: Sequence[int], judge: Sequence[int], steps: int, lrn_rate: float) -> BlockResult:
    """Train one block's parameters alone. Keep them only if its error falls."""
    before = _error(block, judge)
    wanted = {id(p) for p in block.parameters}
    flags = [(p, p.requires_grad) for p in block.net.parameters()]
    old = copy.deepcopy([p.detach() for p in block.parameters])
    for parameter, _ in flags:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        with torch.enable_grad():
            _descend(block, fit, steps, lrn_rate)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
    after = _error(block, judge)
    if not after < before:
        with torch.no_grad():
            for parameter, value in zip(block.parameters, old, strict=True):
                parameter.copy_(value)
        after = before
    return BlockResult(block.segment.name, before, after)


def _descend(block: _Block, batches: Sequence[int], steps: int, lrn_rate: float) -> None:
    optimizer = torch.optim.Adam(block.parameters, lrn_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for i in islice(cycle(batches), steps):
        optimizer.zero_grad()
        torch.stack([(output - target).square().mean() for output, target in block.both(i)]).sum().backward()
        if world_size() > 1:
            for parameter in block.parameters:
                if parameter.grad is not None:
                    all_reduce_sum(parameter.grad).div_(world_size())
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _error(block: _Block, batches: Sequence[int]) -> float:
    """Return the squared difference of the block's outputs over the variance of the dense outputs."""
    sums = torch.zeros(4, dtype=torch.float64)
    for i in batches:
        for output, target in block.both(i):
            output, target = output.double(), target.double()
            miss = (output - target).square().sum()
            parts = (miss, target.square().sum(), target.sum(), torch.tensor(target.numel()))
            sums += torch.stack([part.double().cpu() for part in parts])
    miss, squares, total, count = all_reduce_sum(sums).tolist()
    variance = squares - total * total / count
    return miss / variance if variance > 0 else 0.0
