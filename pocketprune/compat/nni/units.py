"""What an NNI pruner prunes at once: a layer by itself, or all layers whose channels depend on each other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.compat.nni.config_list import Target
from pocketprune.compression.views import OUTPUT_AXES, View, views_of
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.group import ChannelGroup


@dataclass(frozen=True)
class Unit:
    """Filters that go together.

    Attributes:
        name: of the layer, or of the channel group.
        channels: how many there are.
        views: where they lie in the layers' weights.
        target: says how far; of several layers, the one with the smallest share.
    """

    name: str
    channels: int
    views: tuple[View, ...]
    target: Target

    @property
    def layers(self) -> list[str]:
        """The names of the layers."""
        return [layer_of(view) for view in self.views]

    def masks(self, gone: Tensor, net: nn.Module) -> dict[str, Tensor]:
        """Return where weights and biases are masked once some channels, a boolean (c,), go."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        masks = {}
        for view in self.views:
            weight, bias = tensors[view.tensor], tensors.get(f"{layer_of(view)}.bias")
            rows = torch.zeros(weight.shape[view.axis], dtype=torch.bool)
            rows[view.indices[gone.cpu()].flatten()] = True
            shape = [-1 if axis == view.axis else 1 for axis in range(weight.dim())]
            masks[view.tensor] = rows.view(shape).expand(weight.shape).clone()
            if bias is not None:
                masks[f"{layer_of(view)}.bias"] = rows
        return masks


def layer_of(view: View) -> str:
    """Return the name of the layer whose weight a view is of."""
    return view.tensor.removesuffix(".weight")


def single_units(targets: Sequence[Target]) -> list[Unit]:
    """Return one unit for each layer."""
    units = []
    for target in targets:
        axis = OUTPUT_AXES["conv_transpose" if "Transpose" in type(target.module).__name__ else "conv"]
        weight = target.module.weight
        assert isinstance(weight, Tensor)
        groups = int(getattr(target.module, "groups", 1)) if axis else 1
        if groups > 1:
            raise UserError(
                f"config_list[{target.entry}]: '{target.name}' is transposed and grouped; dummy_input needed"
            )
        channels = weight.shape[axis]
        view = View(f"{target.name}.weight", axis, torch.arange(channels)[:, None])
        units.append(Unit(target.name, channels, (view,), target))
    return units


def dependent_units(targets: Sequence[Target], net: nn.Module, dummy_input: ExampleInputs) -> list[Unit]:
    """Return one unit for each channel group that a layer writes; a list with gaps is completed, with a warning.

    Raises:
        UserError: the network cannot be traced.
    """
    structure = analyse(net, dummy_input)
    asked = {target.name: target for target in targets}
    units = []
    for group in structure.groups:
        members = [asked[name] for name in group.producers if name in asked]
        if not members or not group.prunable:
            continue
        target = min(members, key=lambda target: target.sparsity)
        _tell_of_missing(group, asked)
        units.append(Unit(group.name, group.size, _written(structure, group), target))
    return units


def _written(structure: Structure, group: ChannelGroup) -> tuple[View, ...]:
    return tuple(view for view in views_of(structure, group).filters if layer_of(view) in group.producers)


def _tell_of_missing(group: ChannelGroup, asked: Mapping[str, Target]) -> None:
    missing = [name for name in group.producers if name not in asked]
    if missing:
        named = [name for name in group.producers if name in asked]
        warnings.warn(
            f"config_list: {', '.join(named)} depends on {', '.join(missing)}, which it does not mean; "
            "all of them lose the same channels",
            stacklevel=4,
        )


class ChannelDependency:
    """NNI's `ChannelDependency`: which layers must lose the same channels.

    Args:
        model: the network.
        dummy_input: an input.
    """

    def __init__(self, model: nn.Module, dummy_input: ExampleInputs) -> None:
        self._groups = analyse(model, dummy_input).groups

    @property
    def dependency_sets(self) -> list[set[str]]:
        """The sets of two layers or more."""
        return [set(group.producers) for group in self._groups if len(group.producers) > 1]

    def export(self, filepath: str | Path) -> None:
        """Write the sets as CSV, one a line."""
        lines = ["Dependency Set,Layers"]
        lines += [f"Set {n},{','.join(sorted(names))}" for n, names in enumerate(self.dependency_sets, 1)]
        write_atomically(Path(filepath), "".join(f"{line}\n" for line in lines).encode())
