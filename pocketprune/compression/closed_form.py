"""The closed form lent by channel pruning: moments for criteria, and the refit of what reads masked channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration, Positions
from pocketprune.channel_pruning.consumers import Consumer, moments_of
from pocketprune.channel_pruning.coupling import slices_of
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.runner import PruningRun
from pocketprune.common.modes import evaluation_mode
from pocketprune.compression.views import GroupViews
from pocketprune.graph.sweep import Route, Sweep
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.evidence import ConsumerSlice
from pocketprune.numerics.moments import all_reduce
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import whole_input
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of, read_groups
from pocketprune.training.distributed import world_size

POINTS = 10
"""Positions an image and layer at which moments are taken, as in channel pruning."""


def measured_consumers(
    structure: Structure, views: Sequence[GroupViews], batches: Iterable[ExampleInputs], seed: int = 0
) -> Mapping[str, Sequence[ConsumerSlice]]:
    """Return for each group the layers that read it, with moments of the network as it is.

    Args:
        structure: the analysed network.
        views: of the groups.
        batches: inputs; under several processes each brings its own.
        seed: of the sampled positions.
    """
    wanted = {v.group.name for v in views}
    readers = [layer for layer, names in _readers(structure) if wanted & names]
    consumers = {layer.layer.node: Consumer(structure.traced, whole_input(layer)) for layer in readers}
    sweep = Sweep(Route.through(structure.traced, list(consumers)), list(batches))
    draw = Positions(POINTS, seed, structure.traced.device)
    found: dict[str, list[ConsumerSlice]] = {name: [] for name in wanted}
    for consumer, mine in moments_of(sweep, consumers, POINTS, draw, lambda *_: None):
        moments = [all_reduce(m) for m in mine] if world_size() > 1 else mine
        for v in views:
            found[v.group.name] += slices_of(structure, v.group, consumer, moments)
    return found


def _readers(structure: Structure) -> list[tuple[PrunableLayer, set[str]]]:
    """Return the layers that the closed form knows, each with the groups that it reads."""
    return [
        (layer, {group.name for group in read_groups(structure, layer.layer)})
        for layer in layers_of(structure, "couple", "all")
        if layer.layer.in_ids is not None and not is_reused(structure, layer.layer)
    ]


def groups_with_readers(structure: Structure) -> set[str]:
    """Return the names of the groups that some layer reads whose moments can be measured."""
    return {name for _, names in _readers(structure) for name in names}


def refitted_tensors(
    structure: Structure, masked: Mapping[str, Tensor], batches: Sequence[ExampleInputs]
) -> dict[str, Tensor]:
    """Return weights, biases and running means by which a masked network stays near the one that it was.

    Every layer is refitted in forward order, on inputs as the masked network makes them, to its output in the network
    as it is. No layer is given a bias that it does not have.

    Args:
        structure: the analysed network, whose tensors are those before masking.
        masked: group name -> the channels that will be masked, a boolean (c,).
        batches: inputs, without labels; under several processes each brings its own.

    Returns:
        The tensors that change, by name, in the network's own shapes.
    """
    return dict(_refit(structure, masked, batches, new_biases=False)[1].tensors)


def refitted_network(structure: Structure, masked: Mapping[str, Tensor], batches: Sequence[ExampleInputs]) -> nn.Module:
    """Return the network without the masked channels, refitted; layers may be given biases.

    Args are those of `refitted_tensors`.
    """
    plan, cut = _refit(structure, masked, batches, new_biases=True)
    with torch.no_grad(), evaluation_mode(structure.traced.net):
        net, _ = cut.thinned(plan.structure)
    return net.train(structure.traced.net.training)


def _refit(
    structure: Structure, masked: Mapping[str, Tensor], batches: Sequence[ExampleInputs], *, new_biases: bool
) -> tuple[Plan, Cut]:
    together = world_size() > 1
    options = PruningOptions(shared_input="keep", layers="all", points_per_layer=POINTS, check=False, together=together)
    plan = Plan.for_target(structure, 1.0, options)
    for consumer in plan.consumers.values():
        if consumer.bias_place == "new" and not new_biases:
            consumer.bias_place = ""
    removed = Cut.nothing(structure).removed
    for name, mask in masked.items():
        removed[np.array(structure.group(name).classes)[mask.cpu().numpy()]] = True
    calibration = Calibration.of(batches, together=together)
    with torch.no_grad(), evaluation_mode(structure.traced.net):
        run = PruningRun(plan, calibration)
        run.state.cut = run.state.cut.merged(Cut(removed))
        run.prune_until(len(plan.route.stops))
    return plan, run.state.cut
