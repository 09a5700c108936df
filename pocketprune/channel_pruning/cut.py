"""The decisions of a pruning so far, as one value that the sweep, the search's roll-outs and thinning share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pocketprune.graph.sweep import Replacements
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import Decision
from pocketprune.structure.masking import masked_readers
from pocketprune.thinning.expanding import expand_tensors
from pocketprune.thinning.holding import is_exact
from pocketprune.thinning.recipes import Recipe, recipe_for, thin_tensor
from pocketprune.thinning.removal import thin


@dataclass(frozen=True)
class Cut:
    """The channels that are removed from a network, and its refitted tensors. A cut is merged, but never changed.

    Attributes:
        removed: boolean per class of the structure.
        samplers: weight name -> the input channels that its layer keeps of a tensor that stays whole.
        tensors: refitted parameters and buffers by name, in dense shapes.
        biases: new biases of layers that have none, by node, in dense shapes.
    """

    removed: np.ndarray
    samplers: Mapping[str, list[int]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    biases: Mapping[fx.Node, Tensor] = field(default_factory=dict)

    @classmethod
    def nothing(cls, structure: Structure) -> Cut:
        """Return the cut that removes and refits nothing."""
        return cls(np.zeros(int(structure.classes.max()) + 1, dtype=bool))

    def merged(self, other: Cut) -> Cut:
        """Return both cuts as one. If both refit a tensor, that of `other` holds."""
        return Cut(
            self.removed | other.removed,
            {**self.samplers, **other.samplers},
            {**self.tensors, **other.tensors},
            {**self.biases, **other.biases},
        )

    @property
    def is_refitted(self) -> bool:
        """Whether any tensor was refitted."""
        return bool(self.tensors or self.biases)

    @property
    def bytes(self) -> int:
        """The memory of the refitted tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def remaining_units(self, structure: Structure, decision: Decision) -> np.ndarray:
        """Return the units of a layer's input that are not removed, in order."""
        layer = decision.layer.layer
        if layer.in_ids is None:
            return np.arange(decision.size)
        return np.flatnonzero(~self.removed[structure.class_of(layer.in_ids)[decision.units[:, 0]]])

    def replacements(self, structure: Structure) -> Replacements:
        """Return the differences between a sweep's pruned network and the dense one."""
        return Replacements(self.tensors, self.biases, masked_readers(structure, self.removed))

    def thinned(self, structure: Structure, *, form: str = "") -> tuple[nn.Module, Recipe]:
        """Return the thinned network with its refitted tensors, and its recipe. `form` is as for `thin`."""
        kept = {
            group.name: [i for i, label in enumerate(group.classes) if not self.removed[label]]
            for group in structure.groups
            if self.removed[list(group.classes)].any()
        }
        recipe = recipe_for(structure, kept, self.samplers)
        tensors = dict(self.tensors)
        for path, outputs, bias in self._new_biases(structure, recipe):
            recipe.new_biases.append(path)
            tensors[f"{path}.bias"] = thin_tensor(bias, outputs)
        return thin(structure, recipe, exact=is_exact(structure, kept), tensors=tensors, form=form), recipe

    def following(self, structure: Structure, net: nn.Module, recipe: Recipe, names: set[str]) -> Cut:
        """Return the cut after the thinned network was trained: with its tensors `names` and its new biases."""
        tuned = expand_tensors(net, recipe, {**structure.traced.named_tensors(), **self.tensors})
        biases = dict(self.biases)
        nodes = {layer.weight: layer.node for layer in structure.contractions}
        for path, outputs, bias in self._new_biases(structure, recipe):
            name = f"{path}.bias"
            expanded = expand_tensors(net, Recipe(kept={name: outputs}), {name: bias})
            biases[nodes[f"{path}.weight"]] = expanded[name]
        tensors = {name: tensor for name, tensor in tuned.items() if name in names}
        return Cut(self.removed, self.samplers, {**self.tensors, **tensors}, biases)

    def _new_biases(self, structure: Structure, recipe: Recipe) -> Iterable[tuple[str, dict[int, list[int]], Tensor]]:
        """Yield (path, kept outputs by axis, dense bias) for each layer with a new bias."""
        for layer in structure.contractions:
            if layer.weight is not None and layer.node in self.biases:
                outputs = {axis: kept for axis, kept in recipe.kept.get(layer.weight, {}).items() if axis == 0}
                yield layer.weight.removesuffix(".weight"), outputs, self.biases[layer.node]

    def state_dict(self, structure: Structure) -> dict[str, Any]:
        """Return the cut as tensors and plain values."""
        names = {layer.node: layer.weight for layer in structure.contractions}
        return {
            "removed": torch.from_numpy(self.removed.copy()),
            "samplers": {name: list(inputs) for name, inputs in self.samplers.items()},
            "tensors": {name: tensor.detach().clone() for name, tensor in self.tensors.items()},
            "biases": {names[node]: bias.detach().clone() for node, bias in self.biases.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], structure: Structure) -> Cut:
        """Return the cut that `state_dict` described, on the network's device."""
        nodes = {layer.weight: layer.node for layer in structure.contractions}
        device = structure.traced.device
        return cls(
            state["removed"].numpy().copy(),
            {name: list(inputs) for name, inputs in state["samplers"].items()},
            {name: tensor.to(device) for name, tensor in state["tensors"].items()},
            {nodes[name]: bias.to(device) for name, bias in state["biases"].items()},
        )
