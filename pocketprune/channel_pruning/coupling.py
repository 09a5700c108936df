"""Shared inputs pruned jointly: one choice for all layers that read a channel group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.consumers import Consumer, moments_of
from pocketprune.graph.sweep import Sweep
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.selection import select
from pocketprune.structure.channel_groups import ChannelGroup, Structure
from pocketprune.structure.cost_model import whole_input
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of, read_groups


def couple_groups(
    structure: Structure,
    layers: Sequence[PrunableLayer],
    counts: Mapping[Any, int],
    calibration: Calibration,
    settings: Any,
    draw: Callable[[int, int], Tensor],
    progress: Callable[[str, int, int], None],
) -> np.ndarray:
    """Classes to remove (boolean) from the groups that coupled layers read.

    A group's readers are weighed together on the dense network's moments: their Gram matrices add. It keeps the
    largest share that any of its prunable readers asks for.
    """
    removed = np.zeros(int(structure.classes.max()) + 1, dtype=bool)
    shares = _shares(structure, layers, counts)
    if not shares:
        return removed
    readers = [
        layer
        for layer in layers_of(structure, settings.shared_input, "all")
        if not is_reused(structure, layer.layer)
        and layer.layer.in_ids is not None
        and any(g.name in shares for g in read_groups(structure, layer.layer))
    ]
    moments = _dense_moments(structure, readers, calibration, settings, draw, progress)
    generator = torch.Generator().manual_seed(settings.seed)
    for group in structure.groups:
        if group.name in shares:
            count = max(1, round(shares[group.name] * group.size))
            parts = [part for consumer, m in moments for part in shares_of(structure, group, consumer, m)]
            kept = select(
                settings.selection,
                [p[0] for p in parts],
                [p[1] for p in parts],
                [p[2] for p in parts],
                count,
                output_weights=[p[3] for p in parts],
                generator=generator,
            )
            dropped = np.setdiff1d(np.arange(group.size), kept.cpu().numpy())
            removed[np.array(group.classes)[dropped]] = True
    return removed


def _shares(structure: Structure, layers: Sequence[PrunableLayer], counts: Mapping[Any, int]) -> dict[str, float]:
    """Group name -> share kept, for the groups that coupled layers read and that lose something."""
    shares: dict[str, float] = {}
    for layer in layers:
        if layer.way == "couple":
            for group in read_groups(structure, layer.layer):
                if group.prunable:
                    share = counts[layer.layer.node] / layer.channels
                    shares[group.name] = max(shares.get(group.name, 0.0), share)
    return {name: share for name, share in shares.items() if share < 1}


def _dense_moments(
    structure: Structure,
    readers: Sequence[PrunableLayer],
    calibration: Calibration,
    settings: Any,
    draw: Callable[[int, int], Tensor],
    progress: Callable[[str, int, int], None],
) -> list[tuple[Consumer, list[Moments]]]:
    """Every reader's moments on the dense network, in one pass."""
    consumers = {r.layer.node: Consumer(structure.traced, whole_input(r)) for r in readers}
    sweep = Sweep(structure.traced, list(consumers), calibration.batches, cache_gb=settings.cache_gb)
    found = []

    def tell(name: str, done: int, total: int) -> None:
        progress(f"weighing {name}", done, total)

    for consumer, mine in moments_of(sweep, consumers, settings.points_per_layer, draw, tell):
        moments = calibration.total(mine)
        consumer.check(moments)
        found.append((consumer, moments))
    return found


Share = tuple[Moments, Tensor, int, Tensor | None]


def shares_of(structure: Structure, group: ChannelGroup, consumer: Consumer, moments: list[Moments]) -> list[Share]:
    """A reader's moments restricted to one group, the target being what the group itself contributes."""
    labels = structure.class_of(consumer.layer.in_ids).reshape(consumer.parts, -1)
    shares = []
    for part, m, weight, scale in zip(labels, moments, consumer.weights, consumer.output_weights, strict=True):
        positions = [np.flatnonzero(part == c) for c in group.classes]
        if len(positions[0]) and len({len(p) for p in positions}) == 1:
            shares.append(_share(m, weight, scale, np.stack(positions), consumer.block))
    return shares


def _share(moments: Moments, weight: Tensor, scale: Tensor | None, positions: np.ndarray, taps: int) -> Share:
    rows = torch.from_numpy(positions)[:, :, None] * taps + torch.arange(taps)
    rows = rows.reshape(-1).to(moments.A.device)
    A, W = moments.A[rows][:, rows], weight[rows].double()
    B = A @ W
    part = Moments(moments.count, moments.mean_x[rows], W.T @ moments.mean_x[rows], A, B, (W * B).sum(0))
    return part, W, taps * positions.shape[1], scale
