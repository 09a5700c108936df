"""Which kinds of numbers fill which: integers from a file would pass for weights without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pocketprune.common.errors import UserError

COUNTER = "num_batches_tracked"  # of batch norms; averaged weights bring it along as a fraction


def odd_storage(tensor: Tensor) -> str:
    """Return "quantised", "meta", "nested" or "sparse" for a tensor whose numbers do not lie one by one, else ""."""
    odd = {
        "quantised": tensor.is_quantized,
        "meta": tensor.is_meta,
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
    }
    return next((word for word, holds in odd.items() if holds), "")


def refuse_other_kinds(found: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Refuse stored tensors that cannot fill a network's own because their numbers are of another kind.

    Floating-point numbers of any width fill one another. Whole numbers, complex, quantised and sparse ones, and
    tensors without numbers (meta), fill only their like.

    Args:
        found: name -> tensor of the file; other values, and names that the network lacks, are not looked at.
        own: name -> tensor of the network.
        source: how the message begins.

    Raises:
        UserError: a tensor is of another kind; the message names it.
    """
    for name, tensor in own.items():
        stored = found.get(name)
        if not isinstance(tensor, Tensor) or not isinstance(stored, Tensor):
            continue
        averaged = name.endswith(COUNTER) and _kind(stored) == "real"
        if _kind(stored) != _kind(tensor) and not averaged:
            raise UserError(f"{source}: tensor '{name}' is {_described(stored)}; expected {_described(tensor)}")


def _kind(tensor: Tensor) -> str:
    storage = odd_storage(tensor)
    if storage:
        return storage
    if tensor.is_complex():
        return "complex"
    return "real" if tensor.is_floating_point() else "whole"


def _described(tensor: Tensor) -> str:
    return f"{odd_storage(tensor)} {str(tensor.dtype).removeprefix('torch.')}".strip()
