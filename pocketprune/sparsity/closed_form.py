"""Weights masked and refitted in closed form, layer by layer in forward order, from unlabelled inputs.

Each layer's input is that of the network as pruned so far, and its target what it puts out in the whole network, so
that later layers make up for the errors of earlier ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pocketprune.channel_pruning.calibration import Calibration, Positions
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.sweep import Replacements, Route, Sweep
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.sparse_elimination import eliminate, refit_masked
from pocketprune.numerics.weight_patterns import Pattern
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import whole_input
from pocketprune.structure.layers import is_reused, layers_of
from pocketprune.training.distributed import world_size

POINTS = 10
"""Positions of each image and layer at which moments are taken, as in channel pruning."""


Wanted = tuple[Pattern, int] | Tensor
"""What to mask in a layer: so many pieces of a pattern, or just these weights."""


@dataclass(frozen=True)
class Eliminated:
    """What the closed form has found.

    Attributes:
        masked: layer name -> where its weight is masked.
        tensors: new weights, biases and running means by tensor name.
    """

    masked: dict[str, Tensor]
    tensors: dict[str, Tensor]


def knows(structure: Structure) -> set[str]:
    """Return the names of the layers that the closed form can treat: not depthwise, no shared weight."""
    return {
        layer.name
        for layer in layers_of(structure, "couple", "all")
        if not is_reused(structure, layer.layer) and layer.layer.groups == 1
    }


def eliminated(
    structure: Structure,
    wanted: Mapping[str, Wanted],
    batches: Sequence[ExampleInputs],
    *,
    exact: bool | None = None,
    seed: int = 0,
) -> Eliminated:
    """Return masks and refitted tensors for some layers.

    Args:
        structure: the analysed network.
        wanted: layer name -> (pattern, how many of its pieces are masked), or where the weight is to be masked; of
            layers that `knows` returns.
        batches: inputs, without labels; under several processes each brings its own.
        exact: as for `eliminate`.
        seed: of the positions.
    """
    traced = structure.traced
    masked: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    with torch.no_grad(), evaluation_mode(traced.net):
        for sweep, consumer, moments in moments_of_layers(structure, wanted, batches, seed):
            name = consumer.decision.layer.name
            gone, fitted = _solved(consumer, moments, wanted[name], exact)
            masked[name] = gone.T.reshape(consumer.weight_tensor.shape)
            tensors |= written(consumer, moments, fitted)
            sweep.pruned = Replacements(tensors)
    return Eliminated(masked, tensors)


def moments_of_layers(
    structure: Structure, names: Collection[str], batches: Sequence[ExampleInputs], seed: int = 0
) -> Iterator[tuple[Sweep, Consumer, Moments]]:
    """Yield the sweep, stopped at each of these layers in forward order, the layer, and its moments there.

    Inputs come from the network as the sweep's `pruned` says, which may be assigned anew at each stop.
    """
    traced = structure.traced
    consumers = {
        layer.layer.node: Consumer(traced, whole_input(layer))
        for layer in layers_of(structure, "couple", "all")
        if layer.name in names
    }
    calibration = Calibration.of(batches, together=world_size() > 1)
    draw = Positions(POINTS, seed, traced.device)
    sweep = Sweep(Route.through(traced, list(consumers)), calibration.batches)
    for stop in sweep:
        consumer = consumers[stop]
        consumer.bias_place = "" if consumer.bias_place == "new" else consumer.bias_place  # a mask adds no parameter
        own = consumer.new_moments()
        for x, target in sweep.rows():
            consumer.update(own, x, target, POINTS, draw)
        consumer.check(own)
        yield sweep, consumer, consumer.ordered(calibration.total(own))[0]


def written(consumer: Consumer, moments: Moments, fitted: Tensor) -> dict[str, Tensor]:
    """Return the tensors by name that a refitted weight (d, n) changes: itself, and where the layer's bias goes."""
    bias = moments.mean_y - fitted.T @ moments.mean_x
    everything = torch.arange(consumer.decision.size, device=fitted.device)
    return consumer.refitted(everything, [(fitted, bias)])[0]


def _solved(consumer: Consumer, moments: Moments, wanted: Wanted, exact: bool | None) -> tuple[Tensor, Tensor]:
    """Return where one layer is masked and its refitted weight, (d, n) each."""
    weight = consumer.weights[0]
    if isinstance(wanted, Tensor):
        gone = wanted.to(weight.device).flatten(1).T
        return gone, refit_masked(moments, weight, gone)
    pattern, pieces = wanted
    return eliminate(
        moments, weight, consumer.block, pattern, pieces, output_weight=consumer.output_weights[0], exact=exact
    )
