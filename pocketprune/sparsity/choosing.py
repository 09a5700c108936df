"""Which weights a rule masks at a level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pocketprune.numerics.thresholds import spliced
from pocketprune.numerics.weight_patterns import least_masked
from pocketprune.sparsity.policy import THRESHOLDS, WeightRule


def scores_of(rule: WeightRule, weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return a score for each weight; the lowest go first. With "obs" it is the magnitude, which divides the counts."""
    if rule.criterion != "random":
        return {name: weight.detach().abs() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator).to(weight.device) for name, weight in weights.items()}


def spread_of(rule: WeightRule, weight: Tensor) -> tuple[float, float]:
    """Return where a threshold begins, and the standard deviation of which it is so many further."""
    if rule.ranking == "sensitivity":
        return 0.0, float(weight.detach().std())
    sizes = weight.detach().abs()
    return float(sizes.mean()), float(sizes.std())


def masked_at(
    rule: WeightRule,
    scores: Mapping[str, Tensor],
    level: float,
    spreads: Mapping[str, tuple[float, float]],
    masked: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return where the weights of a rule's layers are masked.

    Args:
        rule: the rule.
        scores: of each weight, by layer.
        level: the share that is masked.
        spreads: what `spread_of` said of each layer when it was first masked; read for thresholds only.
        masked: where each layer is masked now; read for splicing only.
    """
    if rule.ranking in THRESHOLDS:
        factor = rule.sensitivity * (level / rule.schedule.final if rule.schedule.final else 1.0)
        thresholds = {name: spreads[name][0] + factor * spreads[name][1] for name in scores}
        if rule.ranking == "sensitivity":
            return {name: score < thresholds[name] for name, score in scores.items()}
        return {
            name: spliced(score, masked[name], rule.low * thresholds[name], rule.high * thresholds[name])
            for name, score in scores.items()
        }
    if rule.ranking == "global":
        return dict(zip(scores, least_masked(list(scores.values()), rule.shape, level), strict=True))
    return {name: least_masked([score], rule.shape, level)[0] for name, score in scores.items()}
