"""The traced graph as a network again, its arguments rewritten for thinner tensors."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .adapting import Adapter
from .channel_groups import Structure
from .counting import REWRITES
from .thinning import Recipe, thin_modules
from .tracing import TracedNet, module_path, operator_name

LEAVES: dict[type[nn.Module], frozenset[str]] = {
    nn.modules.conv._ConvNd: frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split()),
    nn.Linear: frozenset({"linear"}),
    nn.modules.batchnorm._NormBase: frozenset({"batch_norm", "instance_norm"}),
    nn.modules.dropout._DropoutNd: frozenset({"dropout", "feature_dropout", "alpha_dropout"}),
}
"""Modules that the rewritten network still calls, so that modes, hooks and samplers keep working."""


def thin_graph(structure: Structure, recipe: Recipe) -> nn.Module:
    """The thinned network as a graph module: the same parameter names, thinner tensors, rewritten arguments."""
    root = thin_modules(structure.traced.net, recipe)
    return _Emitter(structure, recipe, root).emit()


def removed_by(structure: Structure, recipe: Recipe) -> np.ndarray:
    """Boolean per class: whether the recipe removes it (samplers remove nothing from the tensors they read)."""
    removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
    for start, size, name, axis in structure.axes:
        kept = recipe.kept.get(name, {}).get(axis)
        if kept is not None and not (axis == 1 and name in recipe.samplers):
            gone = np.setdiff1d(np.arange(size), kept)
            removed[structure.classes[start + gone]] = True
    return removed


class _Emitter:
    """Copies the traced graph node by node, adapting what the removed channels touch."""

    def __init__(self, structure: Structure, recipe: Recipe, root: nn.Module) -> None:
        self.structure, self.recipe, self.root = structure, recipe, root
        self.traced: TracedNet = structure.traced
        self.graph = fx.Graph()
        self.made: dict[fx.Node, Any] = {}
        self.adapter = Adapter(structure, removed_by(structure, recipe), REWRITES)

    def emit(self) -> nn.Module:
        self._inputs()
        for node in self.traced.graph.nodes:
            if node in self.traced.tensor_names and node.users:
                self.made[node] = None  # read where it is used, if it is
            elif node in self.traced.constants:
                self.made[node] = self.constant(self.traced.constants[node])
            elif node.op == "call_function":
                self.made[node] = self._call(node)
        leaves = [self.value(n) for n in pytree.tree_leaves(self.traced.output_node.args[0])]
        self.graph.output(pytree.tree_unflatten(leaves, self.traced.out_spec))
        module = fx.GraphModule(self.root, self.graph, class_name=type(self.traced.net).__name__)
        module.graph.eliminate_dead_code()
        module.recompile()
        module.train(self.traced.net.training)
        return module

    def _inputs(self) -> None:
        """One placeholder per argument of the network's own forward; nested values are taken from it."""
        args, kwargs = self.traced.example
        names = list(inspect.signature(self.traced.net.forward).parameters)
        tops = [self.graph.placeholder(n) for n in names[:len(args)]] + \
               [self.graph.placeholder(n) for n in kwargs]
        flat = pytree.tree_flatten_with_path((args, kwargs))[0]
        order = {("a", i): tops[i] for i in range(len(args))}
        order |= {("k", key): tops[len(args) + i] for i, key in enumerate(kwargs)}
        for node, (path, _) in zip(self.traced.input_nodes, flat, strict=True):
            side, top, *rest = [getattr(p, "idx", getattr(p, "key", None)) for p in path]
            value = order["k" if side else "a", top]
            for key in rest:
                value = self.graph.call_function(_take, (value, key))
            self.made[node] = value

    def constant(self, tensor: Tensor) -> fx.Node:
        """A node that holds a tensor, stored with the network but not in its state dict."""
        name = f"_constant_{sum(1 for n, _ in self.root.named_buffers() if n.startswith('_constant_'))}"
        self.root.register_buffer(name, tensor, persistent=False)
        return self.graph.get_attr(name)

    def value(self, node: Any) -> Any:
        """The new graph's node for an old one; parameters are fetched on first use."""
        if not isinstance(node, fx.Node):
            return node
        if self.made.get(node) is None and node in self.traced.tensor_names:
            self.made[node] = self.graph.get_attr(self.traced.tensor_names[node])
        return self.made[node]

    def copy(self, node: fx.Node, args: Any, kwargs: Any) -> fx.Node:
        """The old node's operator applied to these arguments."""
        return self.graph.call_function(node.target, fx.map_arg(args, self.value), fx.map_arg(kwargs, self.value))

    def _call(self, node: fx.Node) -> fx.Node:
        path = self._leaf(node)
        if path is not None:
            return self.graph.call_module(path, (self.value(node.args[0]),))
        return self.adapter.emit(node, self)

    def _leaf(self, node: fx.Node) -> str | None:
        """Path of the module that does exactly what this node does, if one does."""
        path = module_path(node)
        try:
            module = self.root.get_submodule(path) if path else None
        except AttributeError:
            return None
        for kind, names in LEAVES.items():
            if isinstance(module, kind) and operator_name(node) in names and self._owns(path, module, node):
                return path
        return None

    def _owns(self, path: str, module: nn.Module, node: fx.Node) -> bool:
        """Whether the node uses the module's own tensors and nothing else of its forward lies outside the node."""
        if getattr(module, "padding_mode", "zeros") != "zeros":
            return False
        mine = {id(t) for t in [*module._parameters.values(), *module._buffers.values()] if t is not None}
        used = {id(_attribute(self.root, self.traced.tensor_names[a])) for a in node.all_input_nodes
                if a in self.traced.tensor_names}
        return used <= mine


def _take(container: Any, key: Any) -> Any:
    """Item of a nested input."""
    return container[key]


def _attribute(root: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(root.get_submodule(path), leaf)


def same_output(a: nn.Module, b: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether two networks in evaluation mode give the same output, to single precision."""
    from .tracing import evaluation_mode
    with torch.no_grad(), evaluation_mode(a), evaluation_mode(b):
        try:
            first = pytree.tree_leaves(a(*args, **kwargs))
        except Exception:  # the network's own code may fail in any way once its widths no longer fit
            return False
        second = pytree.tree_leaves(b(*args, **kwargs))
    return len(first) == len(second) and all(close(x, y) for x, y in zip(first, second, strict=True))


def close(x: Any, y: Any, tolerance: float = 1e-4) -> bool:
    """Equal shapes and a largest difference small against the largest value."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return bool(x == y)
    if x.shape != y.shape:
        return False
    if not x.is_floating_point():
        return bool(torch.equal(x, y))
    scale = max(float(x.abs().max()) if x.numel() else 0.0, 1e-12)
    return x.numel() == 0 or float((x - y).abs().max()) <= tolerance * scale
