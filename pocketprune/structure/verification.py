"""Checks on the user's own network: groups hold what they claim, thinned networks compute what masked ones do."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .channel_groups import ChannelGroup, Structure
from .execution import Env, run
from .propagation import Identified
from .tracing import operator_name

READERS = frozenset("""conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear matmul
                       mm bmm addmm einsum scaled_dot_product_attention""".split())
"""Operators that sum over channels: what they read of a removed channel must count as zero."""


def masked_output(structure: Structure, inputs: Any, removed: np.ndarray,
                  tensors: dict[str, Tensor] | None = None) -> Any:
    """The dense network's output with every consumer's columns of the removed channels set to zero.

    Args:
        removed: boolean per class.
    """
    flags, classes = torch.from_numpy(removed), torch.from_numpy(structure.classes)
    originals: dict[fx.Node, Any] = {}

    def mask(node: fx.Node, env: Env) -> None:
        if operator_name(node) not in READERS:
            return
        for source in node.all_input_nodes:
            value = structure.values.get(source)
            if source.op == "call_function" and isinstance(value, Identified):
                originals.setdefault(source, env[source])
                env[source] = _zeroed(env[source], value, flags, classes)
    def around(node: fx.Node, env: Env) -> None:
        for source, kept in originals.items():
            if source in env:
                env[source] = kept
        originals.clear()
        mask(node, env)
    return run(structure.traced, inputs, tensors, before=around)


def _zeroed(numbers: Tensor, value: Identified, flags: Tensor, classes: Tensor) -> Tensor:
    for facet in value.facets:
        core = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
        gone = flags[classes[core]]
        if bool(gone.any()):
            if gone.shape[0] == value.shape[0] and value.shape[0] != numbers.shape[0]:
                gone = gone[:1]  # another batch size than the traced one
            numbers = numbers.masked_fill(gone.to(numbers.device), 0)
    return numbers


def permuted_tensors(structure: Structure, groups: Sequence[ChannelGroup], generator: torch.Generator
                     ) -> dict[str, Tensor]:
    """The network's tensors with the channels of these groups in another order, all their slices alike."""
    tensors = {name: t.detach() for name, t in structure.traced.named_tensors().items()}
    moves: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for group in groups:
        order = torch.randperm(group.size, generator=generator).tolist()
        for here, there in enumerate(order):
            source = group.slices([there])
            for key, target in group.slices([here]).items():
                into, out_of = moves.setdefault(key, ([], []))
                into += target
                out_of += source[key]
    for (name, axis), (into, out_of) in moves.items():
        index = torch.arange(tensors[name].shape[axis])
        index[torch.tensor(into)] = torch.tensor(out_of)
        tensors[name] = tensors[name].index_select(axis, index.to(tensors[name].device))
    return tensors


def check_groups(structure: Structure, inputs: Any, *, seed: int = 0, tolerance: float = 1e-3) -> None:
    """Permute the channels of every prunable group and require an unchanged output.

    A group that fails is marked as one that stays, with that reason. All groups are tried at once; only if that
    fails is each tried alone.
    """
    generator = torch.Generator().manual_seed(seed)
    prunable = [g for g in structure.groups if g.prunable]
    reference = _leaves(run(structure.traced, inputs))

    def holds(groups: Sequence[ChannelGroup]) -> bool:
        moved = _leaves(run(structure.traced, inputs, permuted_tensors(structure, groups, generator)))
        return all(_near(a, b, tolerance) for a, b in zip(reference, moved, strict=True))
    if not prunable or holds(prunable):
        return
    for position, group in enumerate(structure.groups):
        if group.prunable and not holds([group]):
            structure.groups[position] = replace(
                group, prunable=False, reason="permuting its channels changed the network's output")


def _leaves(output: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    scale = a.abs().max() if a.numel() else a.new_ones(())
    return bool(((a - b).abs() <= tolerance * scale).all() | a.isnan().any())
