"""The closed form lent by channel pruning: moments for criteria, and the refit of what reads masked channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pocketprune.channel_pruning.calibration import Positions
from pocketprune.channel_pruning.consumers import Consumer, moments_of
from pocketprune.channel_pruning.coupling import slices_of
from pocketprune.compression.views import GroupViews
from pocketprune.graph.sweep import Route, Sweep
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.evidence import ConsumerSlice
from pocketprune.numerics.moments import all_reduce
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import whole_input
from pocketprune.structure.layers import is_reused, layers_of, read_groups
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
    readers = [
        layer
        for layer in layers_of(structure, "couple", "all")
        if layer.layer.in_ids is not None
        and not is_reused(structure, layer.layer)
        and wanted & {g.name for g in read_groups(structure, layer.layer)}
    ]
    consumers = {layer.layer.node: Consumer(structure.traced, whole_input(layer)) for layer in readers}
    sweep = Sweep(Route.through(structure.traced, list(consumers)), list(batches))
    draw = Positions(POINTS, seed, structure.traced.device)
    found: dict[str, list[ConsumerSlice]] = {name: [] for name in wanted}
    for consumer, mine in moments_of(sweep, consumers, POINTS, draw, lambda *_: None):
        moments = [all_reduce(m) for m in mine] if world_size() > 1 else mine
        for v in views:
            found[v.group.name] += slices_of(structure, v.group, consumer, moments)
    return found
