"""How much a selection weighs the error of each output of a layer: by what it does to the network's output."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, fx

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.second_order import output_metric
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.layers import is_reused, layers_of

IMAGES = 256
"""Calibration images that the metric is measured on, at most."""


def metric_of(structure: Structure, calibration: Calibration, options: PruningOptions) -> dict[fx.Node, Tensor]:
    """Return node -> metric (n,) of its outputs, with mean 1, for the layers that have one.

    Every process must call this, if they prune together.

    Args:
        structure: the analysed dense network, in evaluation mode.
        calibration: the images.
        options: see `PruningOptions`; with metric="norm" no layer has one.
    """
    if options.metric != "divergence" or options.selection not in ("lasso", "obs"):
        return {}
    traced = structure.traced
    nodes = [
        layer.layer.node
        for layer in layers_of(structure, options.shared_input, "all")
        if not is_reused(structure, layer.layer)
    ]
    mine = output_metric(traced, nodes, calibration.first(IMAGES // calibration.world), seed=options.seed)
    parts = calibration.gather([mine[node].cpu() if node in mine else None for node in nodes])
    sums = {
        node: reduce(torch.add, found)
        for node, *measured in zip(nodes, *parts, strict=True)
        if (found := [part for part in measured if part is not None])
    }
    return {
        node: (total / total.mean()).to(traced.device)
        for node, total in sums.items()
        if float(total.mean()) > 0 and bool(total.isfinite().all())
    }
