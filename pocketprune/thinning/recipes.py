"""Thinning: removing channels' slices from a copy of the network.

The copy keeps the network's own code wherever that code still computes the right thing with the thinner tensors.
Where it does not (widths written into a view, a chunk or a padding), the copy runs the traced graph instead, its
arguments rewritten; parameter names, modes and leaf modules stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.common.steps import steps_of
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.group import ChannelGroup

CHANNELS = "channels"
"""The kind of the steps whose data is a recipe."""


@dataclass
class Recipe:
    """How a dense network's tensors become a thinned one's; enough to do it again.

    "Dense" is the network before this thinning. A network that is thinned again has one recipe for each time.

    Attributes:
        kept: tensor name -> axis -> kept indices, for every tensor that became thinner.
        samplers: weight name -> input channels its layer reads, the shared input staying whole.
        new_biases: layers that received a bias.
        form: "module" (the network's own code) or "graph" (the traced graph, rewritten).
        groups: group name -> kept channels, for people.
        example: shapes and dtypes of the example inputs.
        dense: tensor name -> shape in the dense network, by which a stored recipe knows the network it is for.
    """

    kept: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    samplers: dict[str, list[int]] = field(default_factory=dict)
    new_biases: list[str] = field(default_factory=list)
    form: str = "module"
    groups: dict[str, list[int]] = field(default_factory=dict)
    attention: str = "heads"
    allow_inexact: bool = False
    example: Any = None
    dense: dict[str, list[int]] = field(default_factory=dict)


def recipe_of(net: nn.Module) -> Recipe | None:
    """Return how a network's channels were removed, the last time; None where none were."""
    recipes = [step.data for step in steps_of(net) if step.kind == CHANNELS]
    return recipes[-1] if recipes else None


def check_kept(groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int] | Tensor]) -> dict[str, list[int]]:
    """Kept indices by group name, validated and sorted.

    Raises:
        UserError: an unknown group, one that must stay, or indices out of range, repeated or absent.
    """
    by_name, result = {g.name: g for g in groups}, {}
    if not isinstance(kept, Mapping):
        raise UserError(f"kept: {type(kept).__name__} given; a dict from group name to channel indices is accepted")
    for name, indices in kept.items():
        group = by_name.get(name)
        if group is None:
            raise UserError(f"kept: no channel group '{name}'{nearest(str(name), by_name)}")
        listed = _numbers(name, indices)
        if not listed:
            raise UserError(f"kept['{name}'] is empty; 1 to {group.size} channel indices are accepted")
        if len(set(listed)) != len(listed):
            raise UserError(f"kept['{name}'] repeats a channel index")
        if min(listed) < 0 or max(listed) >= group.size:
            raise UserError(
                f"kept['{name}'] has index {max(listed) if max(listed) >= group.size else min(listed)}; "
                f"0 to {group.size - 1} are accepted"
            )
        if not group.prunable and len(listed) < group.size:
            raise UserError(f"kept['{name}']: this group must stay whole: {group.reason}")
        result[name] = sorted(listed)
    return result


def _numbers(name: str, indices: Any) -> list[int]:
    """Channel indices as plain integers. Raises UserError for anything else, masks and fractions too."""
    if isinstance(indices, (Tensor, np.ndarray)):
        indices = indices.tolist()
    if isinstance(indices, str) or not isinstance(indices, Iterable):
        raise UserError(f"kept['{name}']: {type(indices).__name__} given; a sequence of channel indices is accepted")
    listed = list(indices)
    odd = next((i for i in listed if isinstance(i, (bool, np.bool_)) or not hasattr(i, "__index__")), None)
    if odd is not None:
        raise UserError(f"kept['{name}'] holds {odd!r} ({type(odd).__name__}); whole channel indices are accepted")
    return [int(i) for i in listed]


def removed_classes(structure: Structure, kept: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Boolean per class: whether it is removed."""
    removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
    for group in structure.groups:
        if group.name in kept:
            gone = set(range(group.size)) - set(kept[group.name])
            removed[[group.classes[i] for i in gone]] = True
    return removed


def recipe_for(
    structure: Structure, kept: Mapping[str, Sequence[int]], samplers: Mapping[str, Sequence[int]] | None = None
) -> Recipe:
    """The recipe that keeps these channels of each group and these inputs of each sampled layer."""
    removed = removed_classes(structure, kept)
    recipe = Recipe(
        groups={k: list(v) for k, v in kept.items()},
        samplers={k: list(v) for k, v in (samplers or {}).items()},
        attention=structure.attention,
        allow_inexact=structure.allow_inexact,
    )
    for start, size, name, axis in structure.axes:
        stays = ~removed[structure.classes[start : start + size]]
        if not stays.all():
            recipe.kept.setdefault(name, {})[axis] = np.flatnonzero(stays).tolist()
    for name, inputs in recipe.samplers.items():
        recipe.kept.setdefault(name, {})[1] = list(inputs)
    return recipe


def thin_tensor(tensor: Tensor, kept: Mapping[int, Sequence[int]]) -> Tensor:
    """A tensor with only the kept indices along each axis."""
    for axis, indices in kept.items():
        tensor = tensor.index_select(axis, torch.as_tensor(indices, device=tensor.device))
    return tensor
