"""What a network costs: multiply-adds and parameters.

MACs are multiply-adds per single input (one multiply and one add count 1) of the layers that multiply by weights or
multiply activations: convolutions, linear layers, matrix products, attention. Norms, activations and pooling count 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import fx, nn

from pocketprune.graph.admission import refuse_others
from pocketprune.graph.tracing import (
    ExampleInputs,
    TracedNet,
    batch_of,
    concrete_shape,
    node_shape,
    operator_name,
)
from pocketprune.graph.tracing import trace as trace_net
from pocketprune.structure.channel_groups import Structure

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
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "addmm": _addmm,
    "baddbmm": _addmm,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
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
