"""The search for the largest level: where it goes, and that it ends with the network of the best level."""

from __future__ import annotations

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.compression.controller import compress
from pocketprune.compression.level_search import LevelSearch, Progress, Trial, next_trial, search_level
from tests.training.tiny import conv_net


def tried(limit: float, first: float, **settings: float) -> list[float]:
    """The levels that are tried where all up to a limit are good enough."""
    trials: list[Trial] = []
    while (ahead := next_trial(trials, LevelSearch(**settings), first)) is not None:
        trials.append(Trial(ahead.level, ahead.step, 1.0, met=ahead.level <= limit))
    return [trial.level for trial in trials]


@pytest.mark.parametrize(
    ("limit", "first", "settings", "levels"),
    [
        (0.58, 0.4, {}, [0.4, 0.5, 0.6, 0.55, 0.575]),
        (0.22, 0.5, {}, [0.5, 0.4, 0.3, 0.2, 0.25, 0.225]),
        (1.0, 0.8, {}, [0.8, 0.9, 0.95]),
        (1.0, 0.5, {"most": 0.5}, [0.5]),
        (0.0, 0.2, {}, [0.2, 0.1, 0.05, 0.025]),
        (0.45, 0.4, {"step": 0.2, "shrink": 0.25, "least_step": 0.05}, [0.4, 0.6, 0.55, 0.5, 0.45]),
    ],
)
def test_levels(limit: float, first: float, settings: dict[str, float], levels: list[float]) -> None:
    assert tried(limit, first, **settings) == levels


@pytest.mark.parametrize("limit", [k / 40 for k in range(1, 38)])
def test_the_largest_level_is_found_to_the_least_step(limit: float) -> None:
    best = max((level for level in tried(limit, 0.5) if level <= limit), default=0.0)
    assert limit - 0.05 < best <= limit


def test_the_network_of_the_best_level_comes_back_and_a_killed_search_goes_on() -> None:
    def search(progress: Progress | None, most: int) -> tuple[Progress, torch.nn.Module, list[int]]:
        torch.manual_seed(0)
        net = conv_net()
        controller = compress(net, torch.randn(2, 3, 8, 8), {"schedule": "one_shot"})

        def train(trial: Trial) -> float | None:
            nonlocal most
            most -= 1
            with torch.no_grad():
                net[0].bias.add_(1.0)  # what a training leaves
            return None if most < 0 else 0.8 if trial.level <= 0.5 else 0.6

        found = search_level(controller, train, 0.7, first=0.375, progress=progress)
        return found, net, controller.kept()["0"]

    whole, net, kept = search(None, 10)
    assert [round(trial.level, 4) for trial in whole.trials] == [0.375, 0.475, 0.575, 0.525, 0.5]
    assert whole.best is not None
    assert whole.best.level == 0.5
    part, _, _ = search(None, 2)
    again, other, same = search(part, 10)
    assert again.trials == whole.trials
    assert torch.equal(net[0].bias, other[0].bias)
    assert kept == same
    assert len(kept) == 4


def test_where_no_level_is_good_enough_there_is_no_best_one() -> None:
    net = conv_net()
    controller = compress(net, torch.randn(2, 3, 8, 8), {"schedule": "one_shot"})
    assert search_level(controller, lambda trial: 0.0, 0.7, first=0.2).best is None
    with pytest.raises(UserError, match=r"^shrink: 1 given; expected a number in \(0, 1\)"):
        LevelSearch(shrink=1)
