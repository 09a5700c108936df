"""Splits of a share of zeros: the heuristic makes the total, and the search's scores are those of refitted networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from learners.sparse.ramp import ramp
from pocketprune.search import Budget, SearchSettings, search
from pocketprune.sparsity.splits import SparsityEnvironment, heuristic_levels
from pocketprune.structure.channel_groups import analyse
from tests.training.tiny import TinySplit, conv_net


@pytest.mark.parametrize("level", [0.0, 0.3, 0.75, 0.98])
def test_the_heuristic_gives_large_layers_more_and_makes_the_total(level: float) -> None:
    sizes = [432, 2304, 9216, 36864, 640]
    levels = heuristic_levels(sizes, level)
    assert np.dot(sizes, levels) / sum(sizes) == pytest.approx(level, abs=1e-9)
    rising = sorted(range(5), key=sizes.__getitem__)
    assert all(levels[a] <= levels[b] for a, b in itertools.pairwise(rising))
    if 0 < level < 0.9:
        assert np.allclose(np.array(levels) / np.log(sizes), levels[0] / np.log(sizes[0]))


def test_the_ramp_is_pocketflows() -> None:
    schedule = ramp(0.75, 1000, beg=0.1, end=0.5, exponent=3, every=100)
    assert [round(schedule.level(t), 6) for t in (0, 99, 100, 200, 300, 400, 500, 999)] == [
        0, 0, 0, round(0.75 * (1 - 0.75**3), 6), round(0.75 * (1 - 0.5**3), 6), round(0.75 * (1 - 0.25**3), 6), 0.75,
        0.75,
    ]  # fmt: skip
    assert ramp(0.5, 3, beg=0.1, end=0.5, exponent=3, every=500).final == 0.5


def test_a_search_over_levels_meets_the_total_and_is_no_worse_than_uniform() -> None:
    split = TinySplit(count=256)
    torch.manual_seed(0)
    net = conv_net()
    images, _ = next(iter(split.batches(256)))
    structure = analyse(net, images[:2])
    held_out = [(images[128:], net.eval()(images[128:]).argmax(1))]
    env = SparsityEnvironment(structure, ["0", "3", "8"], 0.75, [images[:128]], held_out)
    budget = Budget(kind="params", share=0.25, tolerance=0.02)
    settings = SearchSettings(nb_rlouts=20, swaps=10)
    found, uniform = (search(env, budget, method=method, settings=settings) for method in ("dp", "uniform"))
    assert abs(found.share - 0.25) <= 0.02
    assert found.score.accuracy >= uniform.score.accuracy
    assert env.levels(found.values)["3"] == 1 - found.values[1] / 1000
    assert env.score((1000, 1000, 1000)).divergence < 0.05
    curve = env.error_curve(1)
    assert curve[0] == 1.0
    assert curve[1000] == 0.0
    assert (np.diff(curve) <= 1e-9).all()
