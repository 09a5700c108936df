"""Joint pruning of shared inputs: one selection for all layers that read a channel group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pocketprune.channel_pruning.affordable import is_affordable
from pocketprune.channel_pruning.calibration import Calibration, Positions
from pocketprune.channel_pruning.consumers import Consumer, moments_of
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.plan import Plan
from pocketprune.graph.sweep import Route, Sweep
from pocketprune.numerics.criteria import kept_channels
from pocketprune.numerics.evidence import ConsumerSlice, Evidence
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.ratios import kept_count
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import whole_input
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of, read_groups

Tell = Callable[[str, int, int], None]


def coupled_cut(plan: Plan, calibration: Calibration, positions: Positions, tell: Tell) -> Cut:
    """Return the cut that removes channels from the groups that coupled layers read.

    The criterion sees all readers of a group together, by their moments on the dense network: their Gram matrices add.
    The group keeps the largest share that any of its prunable readers asks for.
    """
    structure, cut = plan.structure, Cut.nothing(plan.structure)
    shares = _shares(plan)
    if not shares:
        return cut
    readers = [
        layer
        for layer in layers_of(structure, plan.options.shared_input, "all")
        if not is_reused(structure, layer.layer)
        and is_affordable(layer, plan.options.moments_gb)
        and layer.layer.in_ids is not None
        and any(g.name in shares for g in read_groups(structure, layer.layer))
    ]
    moments = _dense_moments(plan, readers, calibration, positions, tell)
    generator = torch.Generator().manual_seed(plan.options.seed)
    for group in structure.groups:
        if group.name in shares:
            count = kept_count(shares[group.name], group.size)
            kept = _kept(structure, group, count, moments, plan.options.selection, generator)
            dropped = np.setdiff1d(np.arange(group.size), kept.cpu().numpy())
            cut.removed[np.array(group.classes)[dropped]] = True
    return cut


def _kept(
    structure: Structure,
    group: ChannelGroup,
    count: int,
    moments: Sequence[tuple[Consumer, list[Moments]]],
    selection: str,
    generator: torch.Generator,
) -> Tensor:
    """Return the channels of a group that all of its readers together keep."""
    parts = [part for consumer, m in moments for part in slices_of(structure, group, consumer, m)]
    return kept_channels(selection, Evidence(channels=group.size, consumers=parts, generator=generator), count)


def _shares(plan: Plan) -> dict[str, float]:
    """Return group name -> share kept, for the groups that coupled layers read and that lose channels."""
    shares: dict[str, float] = {}
    for layer in plan.layers:
        if layer.way == "couple":
            for group in read_groups(plan.structure, layer.layer):
                if group.prunable:
                    share = plan.counts[layer.layer.node] / layer.channels
                    shares[group.name] = max(shares.get(group.name, 0.0), share)
    return {name: share for name, share in shares.items() if share < 1}


def _dense_moments(
    plan: Plan, readers: Sequence[PrunableLayer], calibration: Calibration, positions: Positions, tell: Tell
) -> list[tuple[Consumer, list[Moments]]]:
    """Return every reader with its moments on the dense network, from one pass."""
    traced, options = plan.structure.traced, plan.options
    consumers = {r.layer.node: Consumer(traced, whole_input(r), plan.metric.get(r.layer.node)) for r in readers}
    sweep = Sweep(Route.through(traced, list(consumers)), calibration.batches, cache_gb=options.cache_gb)
    found = []

    def weighing(name: str, done: int, total: int) -> None:
        tell(f"weighing {name}", done, total)

    for consumer, mine in moments_of(sweep, consumers, options.points_per_layer, positions, weighing):
        moments = calibration.total(mine)
        consumer.check(moments)
        found.append((consumer, moments))
    return found


def slices_of(
    structure: Structure, group: ChannelGroup, consumer: Consumer, moments: list[Moments]
) -> list[ConsumerSlice]:
    """Return what a reader reads of one group. The target is the contribution of the group itself."""
    assert consumer.layer.in_ids is not None  # a reader of a group carries its identities
    labels = structure.class_of(consumer.layer.in_ids).reshape(consumer.conv_groups, -1)
    slices = []
    for inputs, m, weight, scale in zip(labels, moments, consumer.weights, consumer.selection_weights, strict=True):
        positions = [np.flatnonzero(inputs == c) for c in group.classes]
        if len(positions[0]) and len({len(p) for p in positions}) == 1:
            slices.append(_slice(m, weight, scale, np.stack(positions), consumer.block))
    return slices


def _slice(moments: Moments, weight: Tensor, scale: Tensor | None, positions: np.ndarray, taps: int) -> ConsumerSlice:
    rows = torch.from_numpy(positions)[:, :, None] * taps + torch.arange(taps)
    rows = rows.reshape(-1).to(moments.A.device)
    A, W = moments.A[rows][:, rows], weight[rows].double()
    B = A @ W
    part = Moments(moments.count, moments.mean_x[rows], W.T @ moments.mean_x[rows], A, B, (W * B).sum(0))
    return ConsumerSlice(W, taps * positions.shape[1], part, scale)
