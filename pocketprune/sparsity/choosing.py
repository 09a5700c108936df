"""Which weights a rule masks at a level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pocketprune.numerics.weight_patterns import least_masked
from pocketprune.sparsity.policy import WeightRule


def scores_of(rule: WeightRule, weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return a score for each weight; the lowest go first. With "obs" it is the magnitude, which divides the counts."""
    if rule.criterion != "random":
        return {name: weight.detach().abs() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator).to(weight.device) for name, weight in weights.items()}


def masked_at(
    rule: WeightRule, scores: Mapping[str, Tensor], level: float, deviations: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return where the weights of a rule's layers are masked.

    Args:
        rule: the rule.
        scores: of each weight, by layer.
        level: the share that is masked.
        deviations: the standard deviation of each layer's weights when its threshold was set; read for a ranking by
            sensitivity only.
    """
    if rule.ranking == "sensitivity":
        factor = rule.sensitivity * (level / rule.schedule.final if rule.schedule.final else 1.0)
        return {name: score < factor * deviations[name] for name, score in scores.items()}
    if rule.ranking == "global":
        return dict(zip(scores, least_masked(list(scores.values()), rule.shape, level), strict=True))
    return {name: least_masked([score], rule.shape, level)[0] for name, score in scores.items()}
