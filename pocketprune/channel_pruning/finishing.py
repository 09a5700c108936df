"""From a sweep's decisions to a thinned network, and from a tuned one back into the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from pocketprune.channel_pruning.assembly import recipe_and_tensors
from pocketprune.channel_pruning.outcome import LayerResult, PruneResult
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.layers import PrunableLayer, layers_of
from pocketprune.thinning.expanding import expand_tensors
from pocketprune.thinning.recipes import Recipe
from pocketprune.thinning.removal import thin

if TYPE_CHECKING:
    from pocketprune.channel_pruning.layerwise import PruningRun


def group_ends(listed: Sequence[bool], losing: Sequence[bool], size: int | None) -> list[int]:
    """After how many stops a group of `size` prunable layers is complete and another one follows it.

    Args:
        listed, losing: for each stop, whether it is a prunable layer of the list, and whether it loses channels.
    """
    ends, inside = [], 0
    for number in range(len(listed)):
        inside += listed[number]
        if size is not None and inside == size:
            inside = 0
            if any(losing[number + 1 :]):
                ends.append(number + 1)
    return ends


def thinned(run: PruningRun) -> tuple[nn.Module, Recipe]:
    """The network with what was dropped so far removed, the refitted tensors in place, and its recipe."""
    recipe, tensors = recipe_and_tensors(run.structure, run.removed, run.samplers, run.pruned)
    return thin(run.structure, recipe, tensors=tensors), recipe


def expanded(run: PruningRun, net: nn.Module, recipe: Recipe, names: set[str]) -> None:
    """Take over, in dense shapes, the tensors `names` and the new biases of a network that was thinned and tuned."""
    base = run.structure.traced.named_tensors() | run.pruned.tensors
    tuned = expand_tensors(net, recipe, base)
    run.pruned.tensors |= {name: tensor for name, tensor in tuned.items() if name in names}
    for layer in run.structure.contractions:
        if layer.node in run.pruned.biases:
            path = layer.weight.removesuffix(".weight")
            outputs = {a: k for a, k in recipe.kept.get(layer.weight, {}).items() if a == 0}
            one = Recipe(kept={f"{path}.bias": outputs})
            bias = expand_tensors(net, one, {f"{path}.bias": run.pruned.biases[layer.node]})
            run.pruned.biases[layer.node] = bias[f"{path}.bias"]


def result_of(run: PruningRun) -> PruneResult:
    """The thinned network at the end of a run, with what became of each layer."""
    structure = run.structure
    net, _ = thinned(run)
    after = analyse(net, structure.traced.example)
    macs = {layer.name: layer.macs for layer in layers_of(after, "keep")}
    results = [_row(run, layer, macs) for layer in run.layers]
    return PruneResult(
        net,
        results,
        traced_macs(after.traced),
        traced_macs(structure.traced),
        count_params(net),
        count_params(structure.traced.net),
    )


def _row(run: PruningRun, layer: PrunableLayer, macs: dict[str, int]) -> LayerResult:
    """A layer's result with its MACs in the thinned network; layers not visited stayed as they were."""
    everything = tuple(range(layer.channels))
    row = run.results.get(layer.layer.node) or LayerResult(
        layer.index,
        layer.name,
        layer.channels,
        layer.channels,
        everything,
        1.0,
        0.0,
        0.0,
        layer.macs,
        layer.macs,
        layer.reason,
    )
    return replace(row, macs_after=macs.get(layer.name, layer.macs))
