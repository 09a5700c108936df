"""The preserve ratios for a share of the MACs that change the network's output least, to second order.

Every layer's moments are collected on the dense network, which gives the kept channels and the refitted weights for
every count. What a few counts of each layer cost is computed to second order on images that the moments do not know;
between them the cost is interpolated over the layer's error. The sum of these curves is then made least on the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, fx

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.options import Progress, PruningOptions
from pocketprune.channel_pruning.searching.widths import Widths
from pocketprune.channel_pruning.second_order import second_order_costs
from pocketprune.channel_pruning.targets import MacsShare, checked_share
from pocketprune.common.errors import UserError
from pocketprune.search.allocation import allocate
from pocketprune.search.budget import Budget, Problem
from pocketprune.search.curves import loss_curve, monotone, probe_values
from pocketprune.structure.channel_groups import Structure

PROBED = (0.3, 0.45, 0.6, 0.75, 0.88)
"""Shares of a layer's channels at which its cost is computed."""


def allocated_ratios(
    structure: Structure,
    target: MacsShare,
    calibration: Calibration,
    options: PruningOptions,
    progress: Progress,
    metric: Mapping[fx.Node, Tensor],
) -> list[float]:
    """Return one preserve ratio for each prunable layer, for a network with the target's share of the dense MACs.

    Every process must call this, if they prune together.

    Args:
        structure: the analysed dense network, in evaluation mode.
        target: the share of the dense network's MACs.
        calibration: the images. A fifth of them is held out.
        options: as for `prune_channels`.
        progress: called with (text, done, total).
        metric: as for `Plan`.

    Raises:
        UserError: a share that cannot be reached.
    """
    share = checked_share(target)
    widths = Widths(
        structure, calibration.fitted(), budget="macs", options=options, latency=None, progress=progress, metric=metric
    )
    problem = Problem(widths, Budget("macs", 1.0, aim=0.0))
    lowest = problem.cost(problem.lowest) / problem.full_cost
    if not lowest <= share:
        raise UserError(f"{share} given; {lowest:.3f} to 1 can be reached", argument="target.share")
    problem = Problem(widths, Budget("macs", share, aim=0.0))
    if not problem.free:
        return widths.ratios(problem.highest)
    return widths.ratios(allocate(problem, divergence_curves(widths, problem, calibration, options.seed)))


def divergence_curves(widths: Widths, problem: Problem, calibration: Calibration, seed: int) -> list[np.ndarray]:
    """Return for each variable the expected divergence from the dense network at each allowed value."""
    trials = [(index, value) for index in problem.free for value in probe_values(problem, index, PROBED)]
    cuts = [widths.changes(index, value) for index, value in trials]
    mine = second_order_costs(widths.structure.traced, cuts, calibration.held_out(), seed=seed + calibration.rank)
    found: Sequence[tuple[Tensor, int]] = calibration.gather(mine)
    costs = (sum(total for total, _ in found) / sum(images for _, images in found)).tolist()
    curves = [np.zeros(len(variable.allowed)) for variable in problem.variables]
    for index in problem.free:
        errors = monotone(widths.error_curve(index))
        probed = [(errors[value], cost) for (i, value), cost in zip(trials, costs, strict=True) if i == index]
        at, increases = np.array(probed).T
        curves[index] = loss_curve(errors[list(problem.variables[index].allowed)], at, increases)
    return curves
