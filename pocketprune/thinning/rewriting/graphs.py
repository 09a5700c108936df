"""The traced graph as a network again, its arguments rewritten for thinner tensors."""

from __future__ import annotations

import dataclasses
import inspect
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.graph.hooks import takes_part
from pocketprune.graph.nodes import operator_of
from pocketprune.graph.tracing import TracedNet, module_path, operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.propagation.normalisation import takes_statistics
from pocketprune.structure.propagation.rules import argument
from pocketprune.thinning.modules import thin_modules
from pocketprune.thinning.recipes import Recipe
from pocketprune.thinning.rewriting.adapting import Adapter
from pocketprune.thinning.rewriting.counting import REWRITES
from pocketprune.thinning.rewriting.thinned_graph import ThinnedGraph

LEAVES: dict[type[nn.Module], frozenset[str]] = {
    nn.modules.conv._ConvNd: frozenset(
        {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
    ),
    nn.Linear: frozenset({"linear"}),
    nn.modules.batchnorm._NormBase: frozenset({"batch_norm", "instance_norm", "_native_batch_norm_legit_no_training"}),
    nn.modules.dropout._DropoutNd: frozenset({"dropout", "feature_dropout", "alpha_dropout"}),
}
"""Modules that the rewritten network still calls, so that modes, hooks and samplers keep working."""

DROPOUTS = {"dropout": nn.Dropout, "feature_dropout": nn.Dropout2d, "alpha_dropout": nn.AlphaDropout}


def thin_graph(structure: Structure, recipe: Recipe) -> nn.Module:
    """The thinned network as a graph module: the same parameter names, thinner tensors, rewritten arguments."""
    root = thin_modules(structure.traced.net, recipe)
    _refuse_reserved_names(root)
    return _Emitter(structure, recipe, root).emit()


def _refuse_reserved_names(root: nn.Module) -> None:
    """Raise UserError for a network with a part that cannot be a graph module's, whose own code has the name."""
    parts = [*root._modules, *root._parameters, *root._buffers]
    reserved = {"self", "_graph", "_code", "meta", *(set(dir(fx.GraphModule)) - set(dir(nn.Module)))}
    name = next((part for part in parts if part in reserved), None)
    if name is not None:
        raise UserError(
            f"network {type(root).__name__}: its part '{name}' has a name that torch.fx keeps for itself; "
            "another name is accepted"
        )


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
        self.added = 0
        self.like: dict[str, fx.Node] = {}

    def emit(self) -> nn.Module:
        self._inputs()
        for node in self.traced.graph.nodes:
            if node in self.traced.tensor_names and node.users:
                self.made[node] = None  # read where it is used, if it is
            elif node in self.traced.constants:
                kept = self.adapter.kept(self.structure.values[node])
                self.made[node] = self.constant(self.adapter.thin(self.traced.constants[node], kept))
            elif node.op == "call_function":
                self.made[node] = self._call(node)
        leaves = [self.value(n) for n in pytree.tree_leaves(self.traced.output_node.args[0])]
        self.graph.output(_made_by_nodes(self.graph, pytree.tree_unflatten(leaves, self.traced.out_spec)))
        for node in reversed(list(self.graph.nodes)):
            if node.op not in ("placeholder", "output") and not node.users:
                self.graph.erase_node(node)
        self._keep_unused()
        module = ThinnedGraph(self.root, self.graph, class_name=type(self.traced.net).__name__)
        module.train(self.traced.net.training)
        return module

    def _keep_unused(self) -> None:
        """Mention tensors that the graph does not use, so that the state dict has every key of the original."""
        used = {str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")}
        first = next(n for n in self.graph.nodes if n.op != "placeholder")
        tensors = [
            *self.root.named_parameters(remove_duplicate=False),
            *self.root.named_buffers(remove_duplicate=False),
        ]
        with self.graph.inserting_before(first):
            for name, _ in tensors:
                if name not in used and not any(name.startswith(f"{module}.") for module in used):
                    self.graph.get_attr(name)

    def _inputs(self) -> None:
        """One placeholder per argument of the network's own forward; nested values are taken from it."""
        args, kwargs = self.traced.example
        tops: dict[tuple[str, Any], fx.Node]
        tops = {("args", i): self.graph.placeholder(name) for i, name in enumerate(self._argument_names(len(args)))}
        tops |= {("kwargs", key): self.graph.placeholder(key) for key in kwargs}
        flat = pytree.tree_flatten_with_path((args, kwargs))[0]
        for node, (path, _) in zip(self.traced.input_nodes, flat, strict=True):
            side, top, *rest = [getattr(p, "idx", getattr(p, "key", None)) for p in path]
            value = tops["kwargs" if side else "args", top]
            for key in rest:
                value = self.graph.call_function(operator.getitem, (value, key))
            self.made[node] = value

    def _argument_names(self, count: int) -> list[str]:
        """Names of the network's positional arguments, those gathered by *args numbered."""
        parameters = inspect.signature(self.traced.net.forward).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
        return names + [f"input_{i}" for i in range(len(names), count)]

    def constant(self, tensor: Tensor) -> fx.Node:
        """A node that holds a tensor, stored with the network but not in its state dict."""
        name = f"_constant_{self.added}"
        self.added += 1
        own = next(self.traced.net.parameters(), tensor)
        self.root.register_buffer(name, tensor.to(own.device), persistent=False)
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

        def renewed(given: Any) -> Any:
            return fx.node.map_aggregate(given, lambda a: self._followed(self.value(a)))

        return self.graph.call_function(operator_of(node), renewed(args), renewed(kwargs))

    def _followed(self, argument: Any) -> Any:
        """The network's own device or type, written as a literal when it was traced, as what it is when it runs."""
        own = next((p for p in self.root.parameters() if p.is_floating_point()), None)
        is_device = isinstance(argument, torch.device) and own is not None and argument.type == own.device.type
        is_type = isinstance(argument, torch.dtype) and own is not None and argument == own.dtype
        if not is_device and not is_type:
            return argument
        name = "device" if is_device else "dtype"
        if name not in self.like:
            tensor = next(name for name, p in self.root.named_parameters() if p is own)
            self.like[name] = self.graph.call_function(getattr, (self.graph.get_attr(tensor), name))
        return self.like[name]

    def _call(self, node: fx.Node) -> Any:
        path = self._leaf(node)
        if path is None and operator_name(node) in DROPOUTS and not argument(node, node.args, node.kwargs, "train"):
            path = self._dropout(node)
        if path is not None:
            made = self.graph.call_module(path, (self.value(node.args[0]),))
            return (made, None, None) if isinstance(self.structure.values[node], tuple) else made
        return self.adapter.emit(node, self)

    def _dropout(self, node: fx.Node) -> str:
        """A module in place of a functional dropout, so that it heeds the network's mode."""
        path = f"_dropout_{self.added}"
        self.added += 1
        self.root.add_module(path, DROPOUTS[operator_name(node)](argument(node, node.args, node.kwargs, "p")))
        return path

    def _leaf(self, node: fx.Node) -> str | None:
        """Path of the module that does exactly what this node does, if one does."""
        path = module_path(node)
        try:
            module = self.traced.net.get_submodule(path) if path else None
        except AttributeError:
            return None
        kind = next((k for k in LEAVES if isinstance(module, k)), None)
        if (
            module is None
            or kind is None
            or operator_name(node) not in LEAVES[kind]
            or not self._does_no_more(module, node)
        ):
            return None
        if takes_part(module, path, self.traced.onlookers):
            return None  # what its hooks do is in the graph already
        return path

    def _does_no_more(self, module: nn.Module, node: fx.Node) -> bool:
        """Whether the module runs torch's own forward on its own tensors, all of it in this one node."""
        definer = next(c for c in type(module).__mro__ if "forward" in vars(c))
        if not definer.__module__.startswith("torch.nn.modules") or getattr(module, "padding_mode", "zeros") != "zeros":
            return False
        if takes_statistics(node, node.args, node.kwargs) and getattr(module, "running_mean", None) is not None:
            return False  # the module would use its running statistics
        if getattr(module, "transposed", False) and list(module.output_padding) != list(  # type: ignore[arg-type]
            argument(node, node.args, node.kwargs, "output_padding")
        ):
            return False
        mine = {id(t) for t in [*module._parameters.values(), *module._buffers.values()] if t is not None}
        names = [self.traced.tensor_names.get(a) for a in node.all_input_nodes if a is not node.args[0]]
        return all(name is not None and id(_attribute(self.traced.net, name)) in mine for name in names)


def _attribute(root: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(root.get_submodule(path), leaf)
    return tensor


def _made_by_nodes(graph: fx.Graph, output: Any) -> Any:
    """Return a nested output whose dataclasses are made by nodes; a graph takes sequences and mappings as they are."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, (list, tuple)) and not hasattr(output, "_fields"):
        return type(output)(_made_by_nodes(graph, part) for part in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output) if field.init]
        parts = {name: _made_by_nodes(graph, getattr(output, name)) for name in names}
        return graph.call_function(type(output), (), parts)
    return output
