"""Make an exported graph pure: lay nested graphs flat, replace in-place operators by their pure twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.graph.nodes import arguments, describe, operator_name

_WRAPPERS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")

_VIEWS = frozenset(
    (
        "view",
        "reshape",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "permute",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "flatten",
        "unflatten",
        "narrow",
        "alias",
        "detach",
        "contiguous",
        "getitem",
        "view_as",
        "reshape_as",
        "expand_as",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "diagonal",
        "unfold",
        "to",
        "real",
        "type_as",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "broadcast_to",
        "hsplit",
        "tensor_split",
        "vsplit",
        "dsplit",
        "numpy_T",
        "mT",
        "mH",
        "adjoint",
        "ravel",
        "float",
        "double",
        "half",
        "bfloat16",
        "positive",
        "lift_fresh",
        "meshgrid",
        "unsafe_chunk",
        "unsafe_split",
        "channel_shuffle",
    )
)
"""Operators whose result may share memory with their first argument."""


def purify(module: fx.GraphModule) -> bool:
    """Make a graph pure, in place.

    An in-place operator becomes its pure twin, and later readers of the changed value read the twin instead. That is
    right unless another value that shares memory with the changed one is read later.

    Returns:
        Whether it was done; False where aliasing or a nested graph makes it unsafe.
    """
    if not _lay_flat(module):
        return False
    for node in list(module.graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        twin, changed = _pure_twin(node), node.args[0]
        if twin is None or not isinstance(changed, fx.Node) or _is_seen_elsewhere(changed, node):
            return False
        node.target = twin
        for user in [user for user in changed.users if user is not node and user > node]:
            user.replace_input_with(changed, node)
    return True


def _pure_twin(node: fx.Node) -> Callable[..., Any] | None:
    """Return `aten.add.Tensor` for `aten.add_.Tensor`, if there is such an operator."""
    operator: Any = node.target
    name = operator_name(node)
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, operator._overloadname, None) if packet is not None else None


def _is_seen_elsewhere(changed: fx.Node, change: fx.Node) -> bool:
    """Return whether another value that may share memory with the changed one is read after the change."""
    return any(user > change for alias in _aliases(changed, change) if alias is not changed for user in alias.users)


def _aliases(node: fx.Node, change: fx.Node) -> Iterator[fx.Node]:
    """Yield the values made before a change that may share memory with a value, itself among them."""
    while _shares(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    waiting = [node]
    while waiting:
        alias = waiting.pop()
        yield alias
        waiting += [user for user in alias.users if user < change and _shares(user) and user.args[0] is alias]


def _shares(node: fx.Node) -> bool:
    """Return whether a node's result may share memory with its first argument."""
    schema = getattr(node.target, "_schema", None)
    return (
        node.op == "call_function"
        and bool(node.args)
        and (operator_name(node) in _VIEWS or (schema is not None and schema.is_mutable))
    )


def _lay_flat(module: fx.GraphModule) -> bool:
    """Put the nodes of nested graphs (a region without gradients, say) in place of the calls, where that is possible.

    Returns:
        Whether no nested graph is left.
    """
    while True:
        call = next((n for n in module.graph.nodes if isinstance(n.target, torch._ops.HigherOrderOperator)), None)
        if call is None:
            return not any(n.op == "get_attr" and n.users for n in module.graph.nodes)
        args, name = arguments(call), operator_name(call)
        at = next((i for i, a in enumerate(args) if isinstance(a, fx.Node) and a.op == "get_attr"), None)
        if at is None or name not in _WRAPPERS or (name == "wrap_with_autocast" and args[2]):
            return False
        _inline(module, call, str(args[at].target), args[at + 1 :])


def _inline(module: fx.GraphModule, call: fx.Node, inner: str, args: tuple[Any, ...]) -> None:
    """Copy the nodes of the nested graph called `inner` to where it is called."""
    nested: Any = module.get_submodule(inner)
    values = dict(zip((n for n in nested.graph.nodes if n.op == "placeholder"), args, strict=True))
    results: Any = ()
    with module.graph.inserting_before(call):
        for node in nested.graph.nodes:
            if node.op == "output":
                results = fx.map_arg(node.args[0], values.__getitem__)
            elif node.op == "get_attr":
                setattr(module, f"{inner}_{node.target}", nested.get_submodule(node.target))
                values[node] = module.graph.get_attr(f"{inner}_{node.target}")
            elif node.op != "placeholder":
                values[node] = module.graph.node_copy(node, values.__getitem__)
    for user in list(call.users):
        user.replace_all_uses_with(results[arguments(user)[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(call)


def clean(net: nn.Module, graph: fx.Graph, side_effects: set[str], outputs: int) -> None:
    """Drop what the outputs do not need: assertions, dead values, changes to buffers and inputs.

    Args:
        net: the network, for messages.
        graph: its graph, which is changed.
        side_effects: names of the outputs that are changed buffers or inputs.
        outputs: how many outputs the graph has, side effects included.

    Raises:
        UserError: control flow or the size of a value depends on the data.
    """
    output = next(iter(reversed(graph.nodes)))
    if side_effects:
        kept = list(arguments(output)[0])[-(outputs - len(side_effects)) :] if outputs > len(side_effects) else []
        output.args = (tuple(kept),)
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
    for node in reversed(graph.nodes):  # a branching operator before the graphs that it takes
        if operator_name(node) in ("view", "_unsafe_view") and node.op == "call_function":
            node.target = torch.ops.aten.reshape.default  # strides may come out otherwise where tensors are thinner
        if node.op not in ("placeholder", "output", "call_function") or isinstance(
            node.target, torch._ops.HigherOrderOperator
        ):
            raise UserError(
                f"network {type(net).__name__} cannot be traced: {describe(node)}: control flow that "
                "depends on the data is not supported"
            )
    for node in graph.nodes:
        if _size_depends_on_data(node):
            raise UserError(
                f"network {type(net).__name__} cannot be traced: {describe(node)}: the size of its result "
                "depends on the data"
            )


def _size_depends_on_data(node: fx.Node) -> bool:
    sizes = [d for v in pytree.tree_leaves(node.meta.get("val")) if isinstance(v, Tensor) for d in v.shape]
    return any(not isinstance(d, int) and d.node.hint is None for d in sizes)
