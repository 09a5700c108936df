"""Whether a traced graph holds at another batch size than the one it was traced with, as its network does.

A forward that loops over its inputs or asks for their number as a plain integer is traced at one batch size. Where
only sizes are written down, the graph is freed of them; where more is, the node at fault is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.graph.execution import evaluate_node, run
from pocketprune.graph.hooks import silent_hooks
from pocketprune.graph.nodes import describe, node_shape, operator_name, schema_of, tensors_in
from pocketprune.graph.tracing import ExampleInputs, TracedNet, batch_of, copied, split_inputs
from pocketprune.structure.comparing import all_alike
from pocketprune.structure.propagation.rules import argument

SIZES = (5, 4, 3)
"""Batch sizes tried, the traced one left out; the first that the network takes is used."""

_SIZE_ARGUMENTS = {
    **dict.fromkeys(("view", "expand", "zeros", "ones", "full", "empty", "rand", "randn"), "size"),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), "size"),
    "reshape": "shape",
}
"""Operators that are told the sizes of their result -> the argument that tells them."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


def at_batch(inputs: ExampleInputs, size: int) -> Call:
    """The inputs at another batch size: their own samples, as often as needed."""
    batch = batch_of(inputs)

    def resized(value: Any) -> Any:
        return value[torch.arange(size) % batch] if has_batch(value, batch) else value

    call: Call = pytree.tree_map(resized, split_inputs(inputs))
    return call


def has_batch(value: Any, batch: int) -> bool:
    """Return whether a value is a tensor whose first axis has the length of the batch."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch


@torch.no_grad()
def other_batch(traced: TracedNet) -> tuple[Call, Any] | None:
    """The example at another batch size, with the network's output for it; None where it takes no other size."""
    with undisturbed(traced):
        for size in SIZES:
            args, kwargs = call = at_batch(traced.example, size)
            if size != batch_of(traced.example):
                try:
                    return call, traced.net(*copied(args), **copied(kwargs))
                except Exception:  # a network's forward can raise anything at a size that it is not made for
                    continue
    return None


@contextmanager
def undisturbed(traced: TracedNet) -> Iterator[None]:
    """The network in evaluation mode for a while, as it was after; hooks that only look on are not called."""
    with untouched(traced.net), evaluation_mode(traced.net), silent_hooks(traced.net, traced.onlookers):
        yield


def frozen_at(traced: TracedNet, call: Call, expected: Any) -> str:
    """The node that keeps a graph at the traced batch size, in words; "" where the graph gives what is expected."""
    try:
        made = run(traced, call)
    except Exception:  # operators raise whatever they like
        return _first_frozen(traced, call)
    if all_alike(expected, made, 1e-3) or _is_random(traced, call, expected, made):
        return ""
    return _first_frozen(traced, call)


def refuse_frozen(traced: TracedNet) -> None:
    """Refuse, before a graph is run on batches of other sizes than the traced one, one that does not hold there.

    Raises:
        UserError: the network takes another batch size and its graph does not; the node is named.
    """
    found = other_batch(traced)
    node = frozen_at(traced, *found) if found is not None else ""
    if node:
        raise UserError(
            f"network {type(traced.net).__name__}: its traced graph holds at no other batch size than "
            f"{batch_of(traced.example)}: {node}"
        )


def _is_random(traced: TracedNet, call: Call, expected: Any, made: Any) -> bool:
    """Whether the outputs differ in numbers only, as the network's own do from one run to the next."""
    shapes = [[t.shape for t in tensors_in(outputs)] for outputs in (expected, made)]
    with torch.no_grad(), undisturbed(traced):
        again = traced.net(*copied(call[0]), **copied(call[1]))
    return shapes[0] == shapes[1] and not all_alike(expected, again, 1e-3)


@torch.no_grad()
def _first_frozen(traced: TracedNet, call: Call) -> str:
    """The first node that fails, or that gives as much as it did when traced although it is given more."""
    env: dict[fx.Node, Any] = traced.bind(call)
    for node in traced.call_nodes():
        try:
            env[node] = evaluate_node(node, env)
        except Exception:  # operators raise whatever they like
            return describe(node)
        if _stays_as_traced(node, env):
            return describe(node)
    return "its code, which asks for the batch size"


def _stays_as_traced(node: fx.Node, env: Mapping[fx.Node, Any]) -> bool:
    """Whether a node's arguments have other shapes than when it was traced, but not what is read of its result."""
    changed = any(
        isinstance(env[n], Tensor) and tuple(env[n].shape) != node_shape(n)
        for n in node.all_input_nodes
        if isinstance(n.meta.get("val"), Tensor)
    )
    traced, made = tensors_in(node.meta.get("val")), tensors_in(env[node])
    if not changed or not traced:
        return False
    if isinstance(env[node], (list, tuple)):
        return len(traced) != len(made)
    return traced[0].dim() > 0 and traced[0].shape == made[0].shape


def thawed(traced: TracedNet) -> TracedNet:
    """The traced network, freed of a batch size written down in its views, where that is all that keeps it there."""
    call_and_output = other_batch(traced) if _is_static(traced) else None
    if call_and_output is None or not frozen_at(traced, *call_and_output):
        return traced
    before = {node: (node.args, node.kwargs) for node in traced.graph.nodes}
    added = _free_sizes(traced)
    if frozen_at(traced, *call_and_output):
        for node, (args, kwargs) in before.items():
            node.args, node.kwargs = args, kwargs
        traced.graph.erase_node(added)
    return traced


def _is_static(traced: TracedNet) -> bool:
    """Whether no input has an axis of free length."""
    shapes = [n.meta["val"].shape for n in traced.input_nodes if isinstance(n.meta.get("val"), Tensor)]
    sizes = [size for shape in shapes for size in shape]
    return bool(shapes) and all(isinstance(size, int) or size.node.maybe_as_int() is not None for size in sizes)


def _free_sizes(traced: TracedNet) -> fx.Node:
    """Ask the first input for the batch size wherever a result's first size is told to be the traced one."""
    batch = batch_of(traced.example)
    source = next(n for n in traced.input_nodes if has_batch(n.meta.get("val"), batch))
    nodes = traced.call_nodes()
    with traced.graph.inserting_before(nodes[0]):
        asked = traced.graph.call_function(torch.ops.aten.sym_size.int, (source, 0))
    asked.meta["val"] = batch
    for node in nodes:
        name = _SIZE_ARGUMENTS.get(operator_name(node))
        sizes = list(argument(node, node.args, node.kwargs, name)) if name else []
        if name and sizes and sizes[0] == batch:
            _put(node, name, [asked, *sizes[1:]])
    return asked


def _put(node: fx.Node, name: str, value: Any) -> None:
    """Replace a node's argument by its name in the operator's schema."""
    position = next(i for i, declared in enumerate(schema_of(node).arguments) if declared.name == name)
    if name in node.kwargs:
        node.kwargs = {**node.kwargs, name: value}
    else:
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
