"""Latency as a target: times measured layer by layer, met from both sides, read again from their file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketprune.channel_pruning.searching import layer_latency
from pocketprune.common.errors import UserError
from pocketprune.compression.controller import compress
from pocketprune.compression.latency import MeasuredLatency

EXAMPLE = torch.randn(2, 3, 8, 8)


def conv_net(width: int = 8) -> nn.Module:
    convolutions = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Times that follow from the widths alone, and what has been timed."""
    timed: list[str] = []

    def layer(_self: object, node: object, contraction: object) -> Callable[[int, int], float]:
        def measure(inputs: int, outputs: int) -> float:
            timed.append(f"{node} {inputs} {outputs}")
            return 0.01 + 0.001 * inputs * outputs

        return measure

    def whole(net: torch.nn.Module, *_args: object, **_more: object) -> float:
        timed.append("whole")
        return 0.5 + sum(p.numel() for p in net.parameters()) / 1000

    monkeypatch.setattr(layer_latency.LatencyCost, "_measure", layer)
    monkeypatch.setattr(layer_latency, "measure_latency", whole)
    return timed


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
