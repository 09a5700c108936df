"""Running a network without leaving a trace on it: tensors, modes and attributes come back as they were.

A forward pass may count in a buffer, put a batch norm into training mode, renormalise a weight or keep a feature map
as an attribute. What is run only to look at a network must leave none of that behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Undo = Callable[[], None]


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Undo at the end whatever was done to a network inside.

    A network without weights yet (lazy layers) is left as it has become: its first run makes it.
    """
    tensors = [*net.parameters(), *net.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        yield
        return
    undone: list[Undo] = [_attributes_of(module) for module in net.modules()]
    undone += [_numbers_of(tensor) for tensor in tensors]
    try:
        yield
    finally:
        for undo in undone:
            undo()


def _attributes_of(module: nn.Module) -> Undo:
    """What gives a module its attributes back, its parameters and hooks among them."""
    if isinstance(module, torch.jit.ScriptModule):
        return partial(setattr, module, "training", module.training)
    before = dict(vars(module))
    contents = [_contents_of(value) for value in before.values()]

    def undo() -> None:
        vars(module).clear()
        vars(module).update(before)
        for fill in contents:
            fill()

    return undo


def _contents_of(value: Any) -> Undo:
    """What gives a plain container its contents back; nothing for other values."""
    if not isinstance(value, (dict, set, list, deque)):
        return lambda: None
    held = value.copy()

    def undo() -> None:
        value.clear()
        (value.update if isinstance(value, (dict, set)) else value.extend)(held)

    return undo


def _numbers_of(tensor: Tensor) -> Undo:
    """What gives a tensor its memory and its numbers back."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return lambda: None
    memory, numbers = tensor.detach(), tensor.detach().clone()

    def undo() -> None:
        with torch.no_grad():
            if tensor.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape:
                tensor.data = memory
            if not torch.equal(tensor, numbers):
                tensor.copy_(numbers)

    return undo
