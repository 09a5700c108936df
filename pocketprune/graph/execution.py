"""Run a traced network node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.common.inputs import copied
from pocketprune.graph.nodes import Env
from pocketprune.graph.tracing import ExampleInputs, TracedNet

__all__ = ["Env", "evaluate_node", "last_uses", "run"]


_UPDATING = frozenset(
    (
        torch.ops.aten.batch_norm.default,
        torch.ops.aten.instance_norm.default,
        torch.ops.aten.native_batch_norm.default,
        torch.ops.aten._native_batch_norm_legit.default,
        torch.ops.aten.cudnn_batch_norm.default,
    )
)
"""Operators that write into their arguments 3 and 4, the running statistics, where argument 5 asks for it."""


def evaluate_node(node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
    """Return the value of one call_function node, its arguments looked up in `env`."""
    args: Any = fx.map_arg(node.args, env.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, env.__getitem__)
    if node.target in _UPDATING and args[5]:
        args = (*args[:3], *copied(args[3:5]), *args[5:])
    operator: Any = node.target
    return operator(*args, **kwargs)


def last_uses(nodes: Iterable[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Return for each node the values that no later node reads, so that they can be freed after it."""
    seen: set[fx.Node] = set()
    frees: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(list(nodes)):
        fresh = [n for n in node.all_input_nodes if n not in seen]
        seen.update(fresh)
        frees[node] = fresh
    return frees


@torch.no_grad()
def run(
    traced: TracedNet,
    inputs: ExampleInputs,
    tensors: Mapping[str, Tensor] | None = None,
    before: Callable[[fx.Node, Env], None] | None = None,
) -> Any:
    """Return the network's output in evaluation mode, in its own nesting.

    Args:
        traced: the network.
        inputs: what the network takes.
        tensors: replacements for the network's parameters and buffers, by name.
        before: called with each node and the environment before the node is evaluated.
    """
    env = traced.bind(inputs, tensors)
    frees = last_uses(traced.graph.nodes)
    for node in traced.graph.nodes:
        if node.op == "call_function":
            if before is not None:
                before(node, env)
            env[node] = evaluate_node(node, env)
        elif node.op == "output":
            flat = pytree.tree_leaves(fx.map_arg(node.args[0], env.__getitem__))
            return pytree.tree_unflatten(flat, traced.out_spec)
        for dead in frees[node]:
            if dead.op == "call_function":
                env.pop(dead, None)
    raise AssertionError("a graph ends with an output node")
