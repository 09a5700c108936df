"""A clock by which a layer's time follows from its widths alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from pocketprune.channel_pruning.searching import layer_latency


def steady_clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let layers and networks take times that follow from their widths. Return a list of what is timed from now on."""
    timed: list[str] = []

    def layer(_self: object, node: object, contraction: object, _sampled_of: int | None) -> Callable[[int, int], float]:
        def measure(inputs: int, outputs: int) -> float:
            timed.append(f"{node} {inputs} {outputs}")
            return 0.01 + 0.001 * inputs * outputs

        return measure

    def whole(net: nn.Module, *_args: object, **_more: object) -> float:
        timed.append("whole")
        return 0.5 + sum(p.numel() for p in net.parameters()) / 1000

    monkeypatch.setattr(layer_latency.LatencyCost, "_measure", layer)
    monkeypatch.setattr(layer_latency, "measure_latency", whole)
    return timed
