"""Inputs are tried on a traced network before any work, so that one it does not take is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.graph import execution
from pocketprune.graph.admission import describe_input, first_line
from pocketprune.graph.tracing import ExampleInputs, TracedNet


@torch.no_grad()
def check_accepted(traced: TracedNet, batches: Iterable[ExampleInputs]) -> None:
    """Run one batch of every shape.

    Args:
        traced: the network.
        batches: its inputs, on its device.

    Raises:
        UserError: the network does not take one; the message gives its number.
    """
    known: set[Any] = set()
    for number, batch in enumerate(batches):
        leaves, spec = pytree.tree_flatten(batch)
        looks = tuple((t.shape[1:], t.dtype) if isinstance(t, Tensor) else type(t) for t in leaves)
        if (str(spec), looks) not in known:
            known.add((str(spec), looks))
            try:
                execution.run(traced, batch)
            except UserError:
                raise
            except Exception as error:  # operators raise whatever they like
                shapes = ", ".join(map(describe_input, leaves))
                raise UserError(
                    f"({shapes}): the network does not take it: {first_line(error)}", argument=f"batches[{number}]"
                ) from error
