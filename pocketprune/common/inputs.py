"""The inputs of a network as people give them, and the call with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""A tensor, a sequence of arguments, a mapping of keyword arguments, or (args, kwargs) themselves."""


def split_inputs(inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) of a call.

    Args:
        inputs: a tensor, a sequence of arguments, a mapping of keyword arguments, or (args, kwargs) themselves.

    Raises:
        UserError: the inputs are none of these.
    """
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    raise UserError(
        f"{type(inputs).__name__} given; a tensor, a tuple of arguments or a dict of keyword arguments is accepted",
        argument="example_inputs",
    )


def copied(inputs: Any) -> Any:
    """Return a copy of the inputs, which a network that works in place may change."""
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, inputs)


def called(net: nn.Module, inputs: ExampleInputs) -> Any:
    """Return a network's outputs for inputs, which stay as they are."""
    args, kwargs = copied(split_inputs(inputs))
    return net(*args, **kwargs)
