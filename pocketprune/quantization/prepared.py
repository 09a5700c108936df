"""A network with quantisers in its graph, its numbers still real and its own."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.names import suggestion
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.quantization.insertion import (
    Layer,
    functional,
    layers_of,
    left_in_float,
    places,
    tensor_of,
    value_names,
)
from pocketprune.quantization.options import FLOAT_BITS, Quantization, QuantizationOptions
from pocketprune.quantization.quantizers import ActivationQuantizer, CodebookQuantizer, Quantizers, WeightQuantizer
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.recipes import Recipe
from pocketprune.thinning.removal import describe_example
from pocketprune.thinning.rewriting.graphs import thin_graph


class PreparedNet:
    """A network, and its graph with quantisers in it. Both have the same tensors.

    Attributes:
        net: the network in floats; it stays as it is.
        traced: the same as `torch.export` sees it.
        graph: its graph; what it calls and reads lies in `root`.
        layers: the quantised layers, in forward order.
        quantizers: their quantisers, and those of values.
        readers: name of a layer -> name of the value that it reads.
        in_float: what multiplies in floats, and why.
        step: what doing this again takes.
    """

    def __init__(self, net: nn.Module, example_inputs: ExampleInputs, options: QuantizationOptions) -> None:
        structure = analyse(net, example_inputs)
        whole = thin_graph(structure, Recipe())
        assert isinstance(whole, fx.GraphModule)
        self.net, self.traced, self._whole, self.graph = net, structure.traced, whole, whole.graph
        functional(self.graph, whole)
        every = layers_of(self.graph)
        ignored = _ignored([layer.name for layer in every], options)
        self.layers: list[Layer] = [layer for layer in every if layer.name not in ignored]
        if not self.layers and set(ignored) == {layer.name for layer in every} and options.ignore:
            raise UserError("no layer is left to quantise", argument="ignore")
        if not self.layers:
            raise UserError("it has no convolution or linear layer that can be quantised", argument="net")
        self.in_float = left_in_float(self.graph, whole) + [f"{name} (asked for)" for name in ignored]
        self.options = options
        self.quantizers = Quantizers()
        whole.add_module("quantizers", self.quantizers)
        self.readers: dict[str, str] = {}
        if options.activation_bits < FLOAT_BITS:
            self._insert_activations(options.activation_bits, device_of(net))
        self._insert_weights(options)
        _drop_unused(self.graph)
        self.graph.lint()
        self.step = Quantization(
            {layer.name: self.quantizers.weight(layer.key).bits for layer in self.layers},
            {name: part.bits for name, part in self.quantizers.all_activations().items()},
            describe_example(structure.traced.example),
            options.codebook,
        )

    def _insert_activations(self, bits: int, device: torch.device) -> None:
        values = places(self.layers, self.graph, self._whole)
        for node, name in zip(values, value_names(values), strict=True):
            self.quantizers.activations[name] = ActivationQuantizer(bits, device)
            with self.graph.inserting_after(node):
                made = self.graph.call_module(f"quantizers.activations.{name}", (node,))
            node.replace_all_uses_with(made)
            made.update_arg(0, node)
        for layer in self.layers:
            self.readers[layer.name] = _quantizer_before(layer.node.args[0])

    def _insert_weights(self, options: QuantizationOptions) -> None:
        for layer in self.layers:
            if layer.key not in self.quantizers.weights:
                self.quantizers.weights[layer.key] = _quantizer(tensor_of(self.net, layer.weight), layer.name, options)
            weight = layer.node.args[1]
            with self.graph.inserting_before(layer.node):
                made = self.graph.call_module(f"quantizers.weights.{layer.key}", (weight,))
            layer.node.update_arg(1, made)

    def root(self, net: nn.Module | None = None) -> nn.Module:
        """Return a module with all that the graph calls and reads, the very modules and tensors of `net` among it."""
        net, root = net or self.net, nn.Module()
        for kind in ("_modules", "_parameters", "_buffers"):
            getattr(root, kind).update(getattr(self._whole, kind) | getattr(net, kind))
        root._non_persistent_buffers_set = set(self._whole._non_persistent_buffers_set)
        root.training = net.training
        return root

    def module(self) -> fx.GraphModule:
        """Return the network with quantisers as a module, in the network's mode. It has the network's own tensors."""
        made = fx.GraphModule(self.root(), self.graph, class_name=type(self.net).__name__)
        made.training = self.net.training
        return made

    def quantise_only(self, names: Sequence[str] | None) -> None:
        """Quantise these layers alone, each with what it reads; None: all of them, and all other values."""
        for layer in self.layers:
            self.quantizers.weight(layer.key).enabled = names is None or layer.name in names
        read = {self.readers[name] for name in names or () if name in self.readers}
        for name, part in self.quantizers.all_activations().items():
            part.enabled = names is None or name in read


def _quantizer(weight: Tensor, name: str, options: QuantizationOptions) -> nn.Module:
    bits = options.bits.get(name, options.weight_bits)
    if options.codebook:
        return CodebookQuantizer(weight, bits, options.codebook_init, options.codebook_trained)
    return WeightQuantizer(weight, bits, options.per_channel)


def _ignored(names: list[str], options: QuantizationOptions) -> list[str]:
    """Return the layers that stay in float. Raises UserError for a pattern or a name that means none."""
    for name in options.bits:
        if name not in names:
            raise UserError(f"no layer '{name}'{suggestion(name, names)}", argument="bits")
    for pattern in options.ignore:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"no layer '{pattern}'{suggestion(pattern, names)}", argument="ignore")
    return [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in options.ignore)
        or (options.only_bits and name not in options.bits)
        or (not options.whole and name in (names[0], names[-1]))
    ]


def _quantizer_before(value: Any) -> str:
    while not (value.op == "call_module" and str(value.target).startswith("quantizers.")):
        value = value.args[0]
    return str(value.target).rpartition(".")[2]


def _drop_unused(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)


def example_of(described: Any, device: torch.device) -> Any:
    """Return example inputs of the shapes and dtypes recorded."""

    def is_tensor(value: Any) -> bool:
        return isinstance(value, dict) and set(value) == {"shape", "dtype"}

    def made(value: Any) -> Any:
        if not is_tensor(value):
            return value
        return torch.zeros(value["shape"], dtype=getattr(torch, value["dtype"]), device=device)

    return pytree.tree_map(made, described, is_leaf=is_tensor)
