"""Measure the time that a network takes."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.graph.admission import refuse_others
from pocketprune.graph.nodes import tensors_in
from pocketprune.graph.tracing import ExampleInputs, copied, split_inputs, try_forward


@torch.no_grad()
def measure_latency(net: nn.Module, example_inputs: ExampleInputs, repeats: int = 30) -> float:
    """Return the median milliseconds of a forward pass in evaluation mode, after warming up.

    The device is idle at the beginning and at the end of each pass.

    Args:
        net: the network; it stays as it is.
        example_inputs: inputs that it runs on, on its own device.
        repeats: number of timed passes.

    Raises:
        UserError: the network fails on the inputs, or fewer than one repeat is asked for.
    """
    refuse_others(net)
    args, kwargs = split_inputs(example_inputs)
    try_forward(net, args, kwargs)
    if repeats < 1:
        raise UserError(f"{repeats} given; 1 or more is accepted", argument="repeats")
    cuda = any(t.is_cuda for t in tensors_in((args, kwargs)))

    def once() -> float:
        own_args, own_kwargs = copied(args), copied(kwargs)  # a network may work in place
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        net(*own_args, **own_kwargs)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    with untouched(net), evaluation_mode(net):
        for _ in range(max(2, repeats // 10)):
            once()
        return statistics.median(once() for _ in range(repeats))
