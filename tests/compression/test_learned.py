"""The learned ranking: evolution finds what plain global ranking misses, and leaves the network alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.controller import Controller, compress
from pocketprune.compression.learned import Coefficients, Evolution, evolve, learn_ranking
from tests.training.tiny import TinySplit, conv_net, same_tensors

IMAGES = TinySplit().images
QUICK = Evolution(population=10, generations=40, samples=3, sigma=2.0, seed=1)


def misleading(ranking: str) -> tuple[nn.Sequential, Controller]:
    """The first layer has small weights, which the second makes up for: plain ranking takes all from the first."""
    net = conv_net(norm=False).eval()
    with torch.no_grad():
        net[0].weight /= 3
        net[0].bias /= 3
        net[3].weight *= 3
    policy = {"ranking": ranking, "normalise": "none", "ignore": ["8"], "schedule": "one_shot", "mask": "hard"}
    return net, compress(net, IMAGES[:2], policy)


def test_evolution_beats_plain_global_ranking_where_scores_mislead() -> None:
    net, controller = misleading("learned")
    before = copy.deepcopy(net)

    def score(net: nn.Module) -> float:
        with torch.no_grad():
            net[8].weight += 1  # what a score does to the network is undone
        return -abs(5 - int(net[0].weight.flatten(1).any(1).sum()))  # five filters left would be best

    found = learn_ranking(controller, score, QUICK)
    assert same_tensors(net, before)
    assert all(bool(~mask.any()) for mask in controller.masks.masked.values())
    controller.epoch_step()
    assert score(net) == 0
    plain, other = misleading("global")
    other.epoch_step()
    assert len(other.kept()["0"]) == 1
    assert score(plain) == -4
    assert learn_ranking(misleading("learned")[1], score, QUICK) == found


def test_every_candidate_of_the_random_phase_differs_and_each_child_changes_something() -> None:
    tried: list[Coefficients] = []

    def judge(candidate: Coefficients) -> float:
        tried.append(candidate)
        return -abs(candidate["a"][0] - 2) - abs(candidate["b"][1])

    best = evolve({"a": 1.0, "b": 0.5}, judge, Evolution(population=20, generations=60, samples=5))
    assert tried[0] == {"a": (1.0, 0.0), "b": (1.0, 0.0)}
    assert len({str(candidate) for candidate in tried}) == 60
    assert best == max(tried, key=lambda c: -abs(c["a"][0] - 2) - abs(c["b"][1]))


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"^policy: no rule has ranking='learned'$"):
        learn_ranking(misleading("global")[1], lambda net: 0.0)
    with pytest.raises(UserError, match=r"^mutated: 0 given; a share in \(0, 1\] is accepted$"):
        Evolution(mutated=0)
