"""The preserve ratios for a share of the MACs that change the network's output least, to second order.

Every layer's moments are collected on the dense network, which gives the kept channels and the refitted weights for
every count. What a few counts of each layer cost is computed to second order on images that the moments do not know;
between them the cost is interpolated over the layer's error. The sum of these curves is then made least on the budget.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.options import Progress, PruningOptions
from pocketprune.channel_pruning.searching.widths import Widths
from pocketprune.channel_pruning.targets import MacsShare, checked_share
from pocketprune.common.errors import UserError
from pocketprune.search.allocation import allocate
from pocketprune.search.budget import Budget, Problem
from pocketprune.search.curvature import divergence_curves
from pocketprune.structure.channel_groups import Structure


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
        structure,
        calibration.fitted(),
        priced=calibration.held_out_numbered(),
        gather=calibration.gather,
        budget="macs",
        options=options,
        latency=None,
        progress=progress,
        metric=metric,
    )
    problem = Problem(widths, Budget("macs", 1.0, aim=0.0))
    lowest = problem.cost(problem.lowest) / problem.full_cost
    if not lowest <= share:
        raise UserError(f"{share} given; {lowest:.3f} to 1 can be reached", argument="target.share")
    problem = Problem(widths, Budget("macs", share, aim=0.0))
    if not problem.free:
        return widths.ratios(problem.highest)
    return widths.ratios(allocate(problem, divergence_curves(problem)))
