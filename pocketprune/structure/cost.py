"""What a network costs: multiply-adds, parameters, time.

MACs are multiply-adds per single input (one multiply and one add count 1) of the layers that multiply by weights or
multiply activations: convolutions, linear layers, matrix products, attention. Norms, activations and pooling count 0.
"""
from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import fx, nn

from pocketprune.errors import UserError
from pocketprune.modes import evaluation_mode

from .admission import refuse_others
from .channel_groups import Structure
from .nodes import tensors_in
from .tracing import (
    ExampleInputs,
    TracedNet,
    batch_of,
    concrete_shape,
    node_shape,
    operator_name,
    split_inputs,
    try_forward,
)
from .tracing import trace as trace_net

Shape = tuple[int, ...]


def _convolution(node: fx.Node) -> int:
    return math.prod(node_shape(node)) * math.prod(_shape(node, 1)[1:])


def _transposed(node: fx.Node) -> int:
    return math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])


def _linear(node: fx.Node) -> int:
    return math.prod(_shape(node, 0)) * _shape(node, 1)[0]


def _matmul(node: fx.Node) -> int:
    return math.prod(node_shape(node)) * _shape(node, 0)[-1]


def _addmm(node: fx.Node) -> int:
    return math.prod(node_shape(node)) * _shape(node, 1)[-1]


def _attention(node: fx.Node) -> int:
    *batch, queries, width = _shape(node, 0)
    keys, values = _shape(node, 1)[-2], _shape(node, 2)[-1]
    return math.prod(batch) * queries * keys * (width + values)


def _einsum(node: fx.Node) -> int:
    sizes: dict[str | int, int] = {}
    terms = node.args[0].replace(" ", "").split("->")[0].split(",")
    for term, operand in zip(terms, node.args[1], strict=True):
        shape, (before, _, after) = node_shape(operand), term.partition("...")
        hidden = len(shape) - len(before + after)  # axes behind the dots, counted from the last
        labels = [*before, *range(-hidden, 0), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values())


MACS: dict[str, Callable[[fx.Node], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear, **dict.fromkeys(("matmul", "mm", "bmm"), _matmul), "addmm": _addmm, "baddbmm": _addmm,
    "scaled_dot_product_attention": _attention, "einsum": _einsum,
}
"""Operator name -> MACs of one node at the traced batch."""


def _shape(node: fx.Node, position: int) -> Shape:
    return concrete_shape(node.args[position].meta["val"].shape)


def node_macs(traced: TracedNet | Structure, node: fx.Node) -> int:
    """MACs of one node per single input."""
    rule = MACS.get(operator_name(node))
    traced = traced.traced if isinstance(traced, Structure) else traced
    return rule(node) // batch_size(traced) if rule is not None else 0


def batch_size(traced: TracedNet) -> int:
    """Length of the first axis of the first example input."""
    return batch_of(traced.example)


def traced_macs(traced: TracedNet) -> int:
    """MACs of a traced network per single input."""
    return sum(node_macs(traced, node) for node in traced.call_nodes())


def count_macs(net: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-adds of one forward pass per single input (see the module's head for what counts).

    Raises:
        UserError: the network cannot be traced.
    """
    return traced_macs(trace_net(net, example_inputs))


def count_params(net: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    refuse_others(net)
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def measure_latency(net: nn.Module, example_inputs: ExampleInputs, repeats: int = 30) -> float:
    """Median milliseconds of a forward pass in evaluation mode, after warming up, the device idle at both ends.

    Raises:
        UserError: the network fails on the inputs, or fewer than one repeat is asked for.
    """
    refuse_others(net)
    args, kwargs = split_inputs(example_inputs)
    try_forward(net, args, kwargs)
    if repeats < 1:
        raise UserError(f"repeats: {repeats} given; 1 or more is accepted")
    cuda = any(t.is_cuda for t in tensors_in((args, kwargs)))

    def once() -> float:
        start = time.perf_counter()
        net(*args, **kwargs)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3
    with evaluation_mode(net):
        for _ in range(max(2, repeats // 10)):
            once()
        return statistics.median(once() for _ in range(repeats))


