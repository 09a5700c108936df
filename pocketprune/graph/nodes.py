"""Read the nodes of a traced graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

Env = dict[fx.Node, Any]
"""The values known at one point of a run."""


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """Return a node's positional arguments. Which types they have is for the operator's schema to say."""
    return node.args


def operator_of(node: fx.Node) -> Any:
    """Return what a node calls."""
    return node.target


def schema_of(node: fx.Node) -> torch.FunctionSchema:
    """Return the schema of a node's operator."""
    schema: torch.FunctionSchema = operator_of(node)._schema
    return schema


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested arguments or outputs, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def operator_name(node: fx.Node) -> str:
    """Return an operator's short name: `conv2d` for `aten.conv2d.default`, `getitem` for Python's."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[1] if schema is not None else getattr(node.target, "__name__", str(node.target))


def describe(node: fx.Node) -> str:
    """Describe a node for people: its operator and the module that called it."""
    path = module_path(node)
    return f"{operator_name(node)} in {path}" if path else f"{operator_name(node)} ({node.name})"


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module whose forward made this node ('' for the network itself)."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def node_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's (single tensor) value at the traced inputs."""
    return concrete_shape(node.meta["val"].shape)


def concrete_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """Return a shape at the traced inputs, in which dynamic sizes are numbers too."""
    return tuple(d if isinstance(d, int) else int(d.node.hint) for d in shape)
