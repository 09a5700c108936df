"""The network that is left in integers: codes, scales and biases, its batch norms part of them.

A batch norm behind a layer multiplies each of its output channels, which only multiplies that channel's scale: the
codes stay what they were in training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from pocketprune.common.steps import INTEGERS, Step, carry_steps, steps_of
from pocketprune.graph.nodes import operator_name
from pocketprune.numerics.integers import TINY, codebook_codes, scale_and_zero, top_code, weight_codes
from pocketprune.quantization.insertion import MOVING, Layer, batch_norm_after, layers_of, tensor_of
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizers import ActivationQuantizer, CodebookQuantizer, WeightQuantizer
from pocketprune.thinning.rewriting.thinned_graph import ThinnedGraph


class IntegerWeight(nn.Module):
    """A weight as codes (n, ...) of at most 8 bits, and the scale (n,) of each output channel.

    Attributes:
        bits: of a code.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self) -> Tensor:
        """Return the weight as real numbers."""
        weight: Tensor = torch.ops.pocketprune.dequantize(self.codes, self.scale)
        return weight


class CodebookWeight(nn.Module):
    """A weight as codes (n, ...) of numbers (c,), and what each output channel is multiplied by (n,).

    Attributes:
        bits: of a code.
    """

    codes: Tensor
    numbers: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, numbers: Tensor, scale: Tensor, bias: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("codes", codes)
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self) -> Tensor:
        """Return the weight as real numbers."""
        return self.numbers[self.codes.long()] * self.scale.view(-1, *[1] * (self.codes.dim() - 1))


class FixedRange(nn.Module):
    """An activation as codes from 0 to 2^bits - 1."""

    scale: Tensor
    zero: Tensor

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        scale, zero = scale_and_zero(*quantizer.range(), quantizer.bits)
        self.bits = quantizer.bits
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero", zero.detach().to(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation as its codes hold it."""
        made: Tensor = torch.ops.pocketprune.requantize(x, self.scale, self.zero, top_code(self.bits))
        return made


@torch.no_grad()
def convert(prepared: PreparedNet, corrections: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return a network with quantisers as one in integers, which has nothing in common with it but its outputs.

    Args:
        prepared: the network with its quantisers, calibrated or trained.
        corrections: name of a layer -> what is added to its outputs (n,), before a batch norm.
    """
    graph, root = _copied(prepared.graph), prepared.root()
    del root._modules["quantizers"]
    root.add_module("integers", nn.ModuleDict())
    root.add_module(
        "ranges", nn.ModuleDict({k: FixedRange(q) for k, q in prepared.quantizers.all_activations().items()})
    )
    for node in graph.nodes:
        if node.op == "call_module":
            node.target = str(node.target).replace("quantizers.activations.", "ranges.")
    for layer in _layers(prepared, graph):
        _convert_layer(layer, graph, prepared, root, (corrections or {}).get(layer.name))
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
    made = copy.deepcopy(ThinnedGraph(root, graph, class_name=type(prepared.net).__name__))
    for module in made.modules():
        module.training = False
    return carry_steps(made, (*steps_of(prepared.net), Step(INTEGERS, prepared.step)))


def _copied(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph, {}))
    return copied


def _layers(prepared: PreparedNet, graph: fx.Graph) -> list[Layer]:
    """The quantised layers of a copy of the graph, their weights read as before the quantisers were put in."""
    known = {layer.name: layer for layer in prepared.layers}
    for node in list(graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("quantizers.weights."):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return [layer for layer in layers_of(graph) if layer.name in known]


def _convert_layer(layer: Layer, graph: fx.Graph, prepared: PreparedNet, root: nn.Module, shift: Tensor | None) -> None:
    weight, norm = tensor_of(prepared.net, layer.weight), batch_norm_after(layer, graph, root)
    bias = tensor_of(prepared.net, layer.bias).detach().clone() if layer.bias else weight.new_zeros(len(weight))
    if shift is not None:
        bias = bias + shift
    gain = torch.ones_like(bias)
    if norm is not None:
        gain, bias = _folded(root.get_submodule(str(norm.target)), bias)
        norm.replace_all_uses_with(layer.node)
        graph.erase_node(norm)
    store = root.get_submodule("integers")
    if layer.key not in store._modules:
        store.add_module(layer.key, _stored(weight, prepared.quantizers.weight(layer.key), gain, bias))
    with graph.inserting_before(layer.node):
        made = graph.call_module(f"integers.{layer.key}", ())
        added = graph.get_attr(f"integers.{layer.key}.bias")
        layer.node.args = (layer.node.args[0], made, added, *layer.node.args[3:])
        _codes_just_before(layer.node, graph)


def _stored(weight: Tensor, quantizer: WeightQuantizer | CodebookQuantizer, gain: Tensor, bias: Tensor) -> nn.Module:
    """A weight as codes, each output channel multiplied by its gain (n,)."""
    if isinstance(quantizer, CodebookQuantizer):
        numbers = quantizer.numbers.detach().clone()
        return CodebookWeight(codebook_codes(weight, numbers), numbers, gain, bias, quantizer.bits)
    scale = quantizer.scale.detach().clamp_min(TINY)
    signs = torch.where(gain < 0, -1, 1).to(torch.int8).view(-1, *[1] * (weight.dim() - 1))
    codes = weight_codes(weight, scale, quantizer.bits) * signs
    return IntegerWeight(codes, scale * gain.abs(), bias, quantizer.bits)


def _codes_just_before(node: fx.Node, graph: fx.Graph) -> None:
    """Let a layer read codes, also where they were moved meanwhile: a runtime looks no further than one operator."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.op == "call_function" and operator_name(source) in MOVING:
        source = source.args[0]
    is_range = isinstance(source, fx.Node) and str(source.target).startswith("ranges.")
    if isinstance(source, fx.Node) and is_range and source is not node.args[0]:
        node.update_arg(0, graph.call_module(str(source.target), (node.args[0],)))


def _folded(norm: nn.Module, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies each channel by, and what a bias before it becomes behind it; both (n,)."""
    mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    assert isinstance(eps, float)
    gain = (variance + eps).rsqrt()
    if isinstance(norm.weight, Tensor):
        gain = gain * norm.weight.detach()
    shift = norm.bias.detach() if isinstance(norm.bias, Tensor) else torch.zeros_like(mean)
    return gain, shift + (bias - mean) * gain


def bits_of(net: nn.Module) -> tuple[float, float]:
    """Return the mean bits of a weight of a network's layers, and the bytes that all of its numbers take so packed.

    Tensors that are no codes count with the bits of their type.
    """
    packed = {id(m.codes): m.bits for m in net.modules() if isinstance(m, IntegerWeight | CodebookWeight)}
    tensors = {id(t): t for t in (*net.parameters(), *net.buffers())}
    sizes = [(t.numel(), packed.get(key, 8 * t.element_size())) for key, t in tensors.items()]
    weights = [(n, b) for (n, b), t in zip(sizes, tensors.values(), strict=True) if t.dim() > 1]
    mean = sum(n * b for n, b in weights) / max(1, sum(n for n, _ in weights))
    return mean, sum(n * b for n, b in sizes) / 8
