"""From what a pruning decided (classes removed, samplers, refitted tensors) to the recipe and tensors of thinning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from pocketprune.graph.sweep import PrunedTensors
from pocketprune.structure.channel_groups import Structure
from pocketprune.thinning.recipes import Recipe, recipe_for, thin_tensor


def recipe_and_tensors(
    structure: Structure, removed: np.ndarray, samplers: Mapping[str, Sequence[int]], pruned: PrunedTensors
) -> tuple[Recipe, dict[str, Tensor]]:
    """The arguments of `thin`.

    Args:
        removed: boolean per class. samplers: weight name -> input channels its layer reads.
        pruned: refitted tensors in dense shapes.
    """
    kept = {
        g.name: [i for i, c in enumerate(g.classes) if not removed[c]]
        for g in structure.groups
        if removed[list(g.classes)].any()
    }
    recipe = recipe_for(structure, kept, samplers)
    tensors = dict(pruned.tensors)
    for layer in structure.contractions:
        if layer.node in pruned.biases:
            path = layer.weight.removesuffix(".weight")
            recipe.new_biases.append(path)
            outputs = {a: k for a, k in recipe.kept.get(layer.weight, {}).items() if a == 0}
            tensors[f"{path}.bias"] = thin_tensor(pruned.biases[layer.node], outputs)
    return recipe, tensors
