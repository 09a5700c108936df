"""What a network computes beside its products: biases, normalisations, activations, pooling, resizing.

The counts are those of NNI's counter: two for an element of a batch norm, one for an element that an activation or a
bias touches, one for each number that an adaptive average adds and one for the division, eleven for an element that a
bilinear resizing makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import fx

from pocketprune.graph.branches import TRACKED_NORMS
from pocketprune.graph.nodes import arguments, node_shape, operator_name
from pocketprune.graph.tracing import TracedNet
from pocketprune.structure.cost import node_macs
from pocketprune.structure.propagation.rules import argument
from pocketprune.structure.samples import sample_count

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
LAYERS = frozenset((*CONVOLUTIONS, "linear", *RECURRENT))
"""Operators whose multiply-adds NNI's default mode counts."""


def _elements(times: int) -> Callable[[fx.Node], int]:
    return lambda node: times * math.prod(node_shape(node))


def _bias(node: fx.Node) -> int:
    bias = argument(node, node.args, node.kwargs, "bias")
    return math.prod(node_shape(node)) if isinstance(bias, fx.Node) else 0


def _adaptive_average(node: fx.Node) -> int:
    """One addition for each number of a window, and one division."""
    before, after = node_shape(arguments(node)[0])[2:], node_shape(node)[2:]
    window = math.prod(a // b for a, b in zip(before, after, strict=True))
    return (window + 1) * math.prod(node_shape(node))


EXTRAS: dict[str, Callable[[fx.Node], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), _bias),
    **dict.fromkeys(TRACKED_NORMS, _elements(2)),
    **dict.fromkeys(("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "hardtanh"), _elements(1)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _elements(1)),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _adaptive_average),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _elements(1)),
    "upsample_linear1d": _elements(5),
    "upsample_bilinear2d": _elements(11),
    "upsample_trilinear3d": _elements(31),
}
"""Operator name -> what one node computes beside its products, at the traced batch."""


def layer_macs(traced: TracedNet) -> dict[fx.Node, int]:
    """Return the multiply-adds of each convolution, linear and recurrent layer, for one input."""
    return {node: node_macs(traced, node) for node in traced.call_nodes() if operator_name(node) in LAYERS}


def extra_operations(traced: TracedNet) -> dict[fx.Node, int]:
    """Return what each operator computes beside its products, for one input."""
    nodes = [node for node in traced.call_nodes() if operator_name(node) in EXTRAS]
    return {node: EXTRAS[operator_name(node)](node) // sample_count(traced) for node in nodes}
