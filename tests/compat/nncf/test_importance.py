"""Scores and kept counts are those of NNCF's own tests (`nncf.md`, section 7).

That section gives filters, counts and numbers, but no networks around them. The scores are therefore those of the
criterion that a configuration names, and the counts those of the first of two convolutions.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune.compat.nncf.settings import filter_pruning_of
from pocketprune.numerics.criteria import evaluate
from pocketprune.numerics.evidence import Evidence
from tests.compat.nncf.networks import configured


@pytest.mark.parametrize(
    ("importance", "shape", "scores"),
    [
        ("L1", (2, 3, 4, 5), [1770, 5370]),
        ("L2", (2, 3, 4, 5), [264.97170, 706.12322]),
        ("geometric_median", (3, 2, 4, 5), [758.94664, 505.96443, 758.94664]),
    ],
)
def test_importance_of_filters(importance: str, shape: tuple[int, ...], scores: list[float]) -> None:
    given = filter_pruning_of(configured([1, 3, 8, 8], filter_importance=importance))
    filters = torch.arange(float(math.prod(shape))).view(shape)
    found = evaluate(given.policy(("conv",)).rules[0].criterion, Evidence(channels=len(filters), filters=[filters]))
    assert found.tolist() == pytest.approx(scores, rel=1e-7)


@pytest.mark.parametrize(
    ("size", "level", "multiple", "removed"), [(20, 0.2, 8, 4), (20, 0.1, 2, 2), (20, 0.1, 5, 0), (20, 0.5, 8, 4)]
)
def test_how_many_filters_are_removed(size: int, level: float, multiple: int, removed: int) -> None:
    net = nn.Sequential(nn.Conv2d(1, size, 1), nn.ReLU(), nn.Conv2d(size, 1, 1))
    policy = {"multiple": multiple, "schedule": {"name": "one_shot", "target": 0.9}}
    control = pocketprune.compress(net, torch.zeros(1, 1, 4, 4), policy)
    control.set_levels([level])
    assert size - len(control.kept()["0"]) == removed
