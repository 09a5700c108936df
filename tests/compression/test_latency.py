"""Latency as a target: times measured layer by layer, met from both sides, read again from their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.controller import compress
from pocketprune.compression.latency import MeasuredLatency
from tests.compression.clock import steady_clock

EXAMPLE = torch.randn(2, 3, 8, 8)


def conv_net(width: int = 8) -> nn.Module:
    convolutions = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return steady_clock(monkeypatch)


@pytest.mark.parametrize("level", [0.1, 0.4])
def test_a_share_of_the_latency_is_met_from_both_sides(clock: list[str], level: float) -> None:
    net = conv_net(160)
    cost = MeasuredLatency(net, EXAMPLE)
    policy = {"latency": level, "schedule": "one_shot", "criterion": "l1", "ranking": "global"}
    controller = compress(net, EXAMPLE, policy, cost=cost)
    controller.epoch_step()
    row = controller.statistics().rules[0]
    assert row.share_of == "latency"
    assert row.reached == pytest.approx(level, abs=0.005)
    assert cost({}) == pytest.approx(0.5 + sum(p.numel() for p in net.parameters()) / 1000)


def test_times_are_read_again_and_not_written_unasked(clock: list[str], tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    first = MeasuredLatency(conv_net(), EXAMPLE, path=path)
    assert clock
    assert not path.exists()
    first.save(path)
    clock.clear()
    again = MeasuredLatency(conv_net(), EXAMPLE, path=path)
    assert not clock
    assert again({"0": 3}) == first({"0": 3})


def test_other_inputs_are_refused() -> None:
    with pytest.raises(UserError, match=r"^example_inputs: a network with other inputs"):
        MeasuredLatency(conv_net(), (EXAMPLE, EXAMPLE))
