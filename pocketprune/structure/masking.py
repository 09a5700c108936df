"""What a dense network computes once some channels count as removed: their columns in every consumer at zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pocketprune.graph.execution import Env, run
from pocketprune.graph.tracing import operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.propagation import Identified
from pocketprune.structure.propagation.reduction import SUMS

READERS = SUMS | {
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "mv",
    "dot",
    "addmm",
    "baddbmm",
    "einsum",
    "scaled_dot_product_attention",
}
"""Operators that sum over channels: what they read of a removed channel must count as zero."""


def masked_output(
    structure: Structure, inputs: Any, removed: np.ndarray, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """The dense network's output with every consumer's columns of the removed channels set to zero.

    Args:
        removed: boolean per class.
        tensors: replacements for the network's parameters and buffers, by name.
    """
    gone = torch.from_numpy(removed[structure.classes])
    readers = {layer.node for layer in (*structure.contractions, *structure.products)}
    originals: dict[fx.Node, Any] = {}

    def around(node: fx.Node, env: Env) -> None:
        for source, unmasked in originals.items():
            if source in env:
                env[source] = unmasked
        originals.clear()
        if operator_name(node) not in READERS or node not in readers:
            return
        for source in node.all_input_nodes:
            value = structure.values.get(source)
            if source.op == "call_function" and isinstance(value, Identified) and isinstance(env[source], Tensor):
                originals[source] = env[source]
                env[source] = _zeroed(env[source], value, gone)

    return run(structure.traced, inputs, tensors, before=around)


def _zeroed(numbers: Tensor, value: Identified, gone: Tensor) -> Tensor:
    """The value with its removed elements at zero."""
    for facet in value.facets:
        core = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
        lost = gone[core]
        if bool(lost.any()):
            if lost.shape[0] == value.shape[0] and value.shape[0] != numbers.shape[0]:
                lost = lost[:1]  # another batch size than the traced one
            numbers = numbers.masked_fill(lost.to(numbers.device), 0)
    return numbers


@dataclass(frozen=True)
class MaskedReaders:
    """Operators that read channels without a weight, once some channels are removed.

    Such an operator (a sum or norm over channels, an attention's scores) has no columns that could be set to zero, so
    the removed channels themselves are set to zero in what it reads.

    Attributes:
        values: the identities of what each operator reads of removed channels, by operator and source.
        gone: boolean per identity.
    """

    values: Mapping[tuple[fx.Node, fx.Node], Identified]
    gone: Tensor

    def __call__(self, reader: fx.Node, source: fx.Node, numbers: Tensor) -> Tensor:
        """Return a source's value as the reader sees it, removed channels at zero."""
        value = self.values.get((reader, source))
        return numbers if value is None else _zeroed(numbers, value, self.gone)

    @property
    def readers(self) -> set[fx.Node]:
        """The operators that see removed channels at zero."""
        return {reader for reader, _ in self.values}


def masked_readers(structure: Structure, removed: np.ndarray) -> MaskedReaders | None:
    """Return the operators without a weight that read removed channels; None where there are none.

    Args:
        removed: boolean per class.
    """
    gone = torch.from_numpy(removed[structure.classes])
    weighted = {layer.node for layer in structure.contractions}
    found: dict[tuple[fx.Node, fx.Node], Identified] = {}
    for node in structure.traced.call_nodes():
        if operator_name(node) in READERS and node not in weighted:
            for source in node.all_input_nodes:
                value = structure.values.get(source)
                if source.op != "call_function" or not isinstance(value, Identified):
                    continue
                if any(bool(gone[facet].any()) for facet in value.facets):
                    found[node, source] = value
    return MaskedReaders(found, gone) if found else None
