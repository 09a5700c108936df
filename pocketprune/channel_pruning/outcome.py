"""The outcome of a pruning: the thinned network, and one row for each prunable layer."""

from __future__ import annotations

from dataclasses import replace

from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import LayerResult, PruneResult
from pocketprune.channel_pruning.solver import Solution
from pocketprune.channel_pruning.state import PruningState
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost import count_params, traced_macs
from pocketprune.structure.layers import PrunableLayer, layers_of


def result_of(plan: Plan, state: PruningState) -> PruneResult:
    """Return the thinned network with the results for its layers."""
    structure = plan.structure
    net, _ = state.cut.thinned(structure)
    after = analyse(net, structure.traced.example)
    macs = {layer.name: layer.macs for layer in layers_of(after, "keep")}
    rows = [state.results.get(layer.layer.node) or _whole(layer) for layer in plan.layers]
    return PruneResult(
        net,
        [replace(row, macs_after=macs.get(row.name, row.macs_before)) for row in rows],
        traced_macs(after.traced),
        traced_macs(structure.traced),
        count_params(net),
        count_params(structure.traced.net),
    )


def row_of(layer: PrunableLayer, consumer: Consumer, solution: Solution) -> LayerResult:
    """Return the result for a layer that was solved."""
    positions = consumer.decision.channels(solution.kept.cpu().numpy())
    return replace(
        _whole(layer),
        kept=len(positions),
        kept_index=tuple(positions.tolist()),
        preserve_ratio=len(positions) / layer.channels,
        error_before=solution.error_before,
        error_after=solution.error_after,
    )


def _whole(layer: PrunableLayer) -> LayerResult:
    """Return the result for a layer that stays as it was."""
    return LayerResult(
        index=layer.index,
        name=layer.name,
        channels=layer.channels,
        kept=layer.channels,
        kept_index=tuple(range(layer.channels)),
        preserve_ratio=1.0,
        error_before=0.0,
        error_after=0.0,
        macs_before=layer.macs,
        macs_after=layer.macs,
        note=layer.reason,
    )
