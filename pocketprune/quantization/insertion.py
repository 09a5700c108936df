"""Where quantisers belong in a network's graph, chosen so that runtimes fuse them into integer kernels.

A convolution or linear layer reads codes, and its weight is codes. What it writes becomes codes after the batch norm
and activation that follow it, because ONNX Runtime computes a convolution in integers only where its output is one.
Both sides of an addition become codes for the same reason.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from pocketprune.graph.nodes import operator_name

FUNCTIONS: dict[type, Any] = {
    nn.Conv1d: torch.conv1d,
    nn.Conv2d: torch.conv2d,
    nn.Conv3d: torch.conv3d,
    nn.Linear: nn.functional.linear,
}
LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
FUSED = ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "threshold", "dropout", "batch_norm")
"""Operators that runtimes compute together with the layer before them."""
MOVING = (
    "max_pool1d", "max_pool2d", "max_pool3d", "reshape", "view", "flatten", "dropout", "squeeze", "unsqueeze",
    "permute", "transpose", "contiguous", "index_select", "slice", "select", "split", "chunk", "getitem",
)  # fmt: skip
"""Operators whose result has only values of their input, so that it needs no codes of its own."""
PRODUCTS = (
    "matmul", "bmm", "mm", "addmm", "einsum", "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "bilinear", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
"""Operators that multiply, and stay in float."""


@dataclass(frozen=True)
class Layer:
    """A layer whose weight can be codes.

    Attributes:
        name: the weight's name without ".weight".
        weight, bias: names of its tensors; "" for no bias.
        node: its call in the graph, `torch.conv2d(x, weight, bias, ...)` or the like.
    """

    name: str
    weight: str
    bias: str
    node: fx.Node

    @property
    def key(self) -> str:
        """Its name as that of a module."""
        return self.name.replace(".", "__")


def functional(graph: fx.Graph, net: nn.Module) -> None:
    """Call all convolutions and linear layers of a graph as functions, their weights as arguments, in place."""
    for node in list(graph.nodes):
        module = _module(net, node)
        function = FUNCTIONS.get(type(module))
        if module is None or function is None:
            continue
        with graph.inserting_before(node):
            names = [f"{node.target}.{leaf}" for leaf in ("weight", "bias")]
            weight = graph.get_attr(names[0])
            bias = graph.get_attr(names[1]) if module.bias is not None else None
            more = () if isinstance(module, nn.Linear) else _geometry(module)
            made = graph.call_function(function, (node.args[0], weight, bias, *more))
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def _geometry(module: Any) -> tuple[Any, ...]:
    return module.stride, module.padding, module.dilation, module.groups


def _module(net: nn.Module, node: fx.Node) -> Any:
    """The module that a node calls; None where it calls none."""
    return net.get_submodule(str(node.target)) if node.op == "call_module" else None


def layers_of(graph: fx.Graph) -> list[Layer]:
    """Return the layers of a graph whose weights are parameters, in forward order."""
    found = []
    for node in graph.nodes:
        if node.op != "call_function" or operator_name(node) not in LAYERS:
            continue
        weight = node.args[1]
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if isinstance(weight, fx.Node) and weight.op == "get_attr" and isinstance(node.args[0], fx.Node):
            name = str(weight.target)
            found.append(
                Layer(name.removesuffix(".weight"), name, str(bias.target) if _is_attribute(bias) else "", node)
            )
    return found


def _is_attribute(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def left_in_float(graph: fx.Graph, net: nn.Module) -> list[str]:
    """Return which multiplications with weights or of activations stay in float, with their operators."""
    named = [(node, operator_name(node) if node.op == "call_function" else "") for node in graph.nodes]
    found = [f"{name} ({node.name})" for node, name in named if name in PRODUCTS]
    return found + [
        f"{type(m).__name__} ({n.target})" for n in graph.nodes if isinstance(m := _module(net, n), _ConvTransposeNd)
    ]


def places(layers: list[Layer], graph: fx.Graph, net: nn.Module) -> list[fx.Node]:
    """Return the values that become codes, in forward order.

    Args:
        layers: the layers that are quantised.
        graph: the network's graph, its layers called as functions.
        net: what the graph's modules are found in.
    """
    quantised = {layer.node for layer in layers}
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node in quantised:
            found.update((_source(node.args[0]), _end(node, net)))
        elif _is_addition(node):
            ends = [_source(value) for value in node.args[:2]]
            if any(_comes_from(end, quantised, net) for end in ends) and all(e.op != "get_attr" for e in ends):
                found.update((*ends, _end(node, net)))
    return [node for node in graph.nodes if node in found and not _leads_to_output(node)]


def _is_addition(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and (operator_name(node) == "add" or node.target is operator.add)
        and all(isinstance(value, fx.Node) for value in node.args[:2])
    )


def _source(value: Any) -> fx.Node:
    """The value that another one consists of."""
    while value.op == "call_function" and operator_name(value) in MOVING and isinstance(value.args[0], fx.Node):
        value = value.args[0]
    found: fx.Node = value
    return found


def _end(node: fx.Node, net: nn.Module) -> fx.Node:
    """The last value that is computed together with a layer."""
    while len(node.users) == 1:
        (user,) = node.users
        module = _module(net, user)
        is_fused = isinstance(module, (_BatchNorm, nn.modules.dropout._DropoutNd)) or (
            user.op == "call_function" and operator_name(user) in FUSED
        )
        if not is_fused or user.args[0] is not node:
            break
        node = user
    return node


def _comes_from(value: fx.Node, layers: set[fx.Node], net: nn.Module) -> bool:
    return any(_end(layer, net) is value for layer in layers)


def _leads_to_output(node: fx.Node) -> bool:
    """Whether the value, moved or not, is what the network returns: that stays a real number."""
    return all(
        user.op == "output" or (user.op == "call_function" and operator_name(user) in MOVING and _leads_to_output(user))
        for user in node.users
    )


def batch_norm_after(layer: Layer, graph: fx.Graph, net: nn.Module) -> fx.Node | None:
    """Return the call of the batch norm that reads a layer alone, if its tensors can join the layer's; else None."""
    users, module = list(layer.node.users), None
    if len(users) == 1 and users[0].args[0] is layer.node:
        module = _module(net, users[0])
    readers = [n for n in graph.nodes if n.op == "get_attr" and str(n.target) == layer.weight for _ in n.users]
    calls = [n for n in graph.nodes if n.op == "call_module" and users and n.target == users[0].target]
    single = len(readers) == 1 and len(calls) == 1
    return users[0] if isinstance(module, _BatchNorm) and module.running_mean is not None and single else None


def value_names(values: list[fx.Node]) -> Iterator[str]:
    """Yield a name for each value: what computes it, and its number in forward order."""
    for number, node in enumerate(values):
        what = str(node.target) if node.op in ("call_module", "placeholder") else operator_name(node)
        yield f"{number}_{what.replace('.', '_')}"


def tensor_of(net: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its name."""
    path, _, leaf = name.rpartition(".")
    found: Tensor = getattr(net.get_submodule(path), leaf)
    return found
