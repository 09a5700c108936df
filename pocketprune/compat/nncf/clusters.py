"""How far the groups of layers that are pruned together are pruned at present."""

from __future__ import annotations

from collections.abc import Sequence

from pocketprune.compat.nncf.prunable import Candidate
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.statistics import PrunedLayerSummary, PrunedModelStatistics
from pocketprune.compression.controller import Controller
from pocketprune.compression.costs import FlopCosts


def counts_of(control: Controller) -> dict[str, int]:
    """Return name of each channel group -> how many of its channels stay."""
    return {name: len(kept) for name, kept in control.kept().items()}


def level_of(control: Controller, cluster: Candidate) -> float:
    """Return the share of a cluster's filters that is masked."""
    return 1 - len(control.masks.kept(cluster.group.name)) / cluster.group.size


def weight_level(control: Controller, clusters: Sequence[Candidate]) -> float:
    """Return the share of the clusters' parameters that is masked."""

    def size(name: str | None) -> int:
        return 0 if name is None else control.net.get_parameter(name).numel()

    sizes = [sum(size(layer.weight) + size(layer.bias) for layer in cluster.layers) for cluster in clusters]
    masked = sum(size * level_of(control, cluster) for size, cluster in zip(sizes, clusters, strict=True))
    return masked / sum(sizes)


def model_statistics(
    control: Controller, clusters: Sequence[Candidate], left: Sequence[Candidate], scopes: Scopes, costs: FlopCosts
) -> PrunedModelStatistics:
    """Return what is pruned at present.

    Args:
        control: the masks.
        clusters: what is pruned.
        left: what is not, each with its reason.
        scopes: NNCF's names of the layers.
        costs: those of the network.
    """
    counts = counts_of(control)
    return PrunedModelStatistics(
        costs.dense_flops,
        costs.flops(counts),
        costs.dense_weights,
        costs.weights(counts),
        costs.dense_filters,
        costs.filters(counts),
        [row for cluster in clusters for row in _rows(control, cluster, scopes)],
        [(_scope(scopes, name), candidate.reason) for candidate in left for name in candidate.names],
    )


def _rows(control: Controller, cluster: Candidate, scopes: Scopes) -> list[PrunedLayerSummary]:
    weights = {layer.weight: name for layer, name in zip(cluster.layers, cluster.names, strict=False)}
    return [
        PrunedLayerSummary(
            _scope(scopes, name),
            list(control.net.get_parameter(weight or "").shape),
            [cluster.group.size],
            level_of(control, cluster),
        )
        for weight, name in weights.items()
    ]


def _scope(scopes: Scopes, name: str) -> str:
    return scopes.names[name].rpartition("/")[0]
