"""Rewards: the number to maximise, as a function of a score and a cost."""

from __future__ import annotations

import math
from collections.abc import Callable

from pocketprune.search.interface import Score

# Latency comes in milliseconds; in nanoseconds its logarithm is a positive number of the size of ln MACs.
LN_UNITS = {"macs": 1.0, "params": 1.0, "latency": 1e6}

USELESS = 20.0
"""Nats. Networks beyond are equally bad: a diverged one has a finite reward, which an agent can average."""


def accuracy_reward(score: Score, cost: float, kind: str, noise_tolerance: float) -> float:
    """Return the accuracy itself. The budget is met by construction."""
    return score.accuracy


def flops_reward(score: Score, cost: float, kind: str, noise_tolerance: float) -> float:
    """Return -max(noise tolerance, error) ln cost (AMC's R_FLOPs with PocketFlow's tolerance)."""
    error = max(noise_tolerance, 1.0 - score.accuracy)
    return -error * math.log(cost * LN_UNITS[kind])


def loss_reward(score: Score, cost: float, kind: str, noise_tolerance: float) -> float:
    """Return minus the cross-entropy. It is finer than the accuracy on few held-out examples."""
    return -min(score.loss, USELESS)


def divergence_reward(score: Score, cost: float, kind: str, noise_tolerance: float) -> float:
    """Return minus the divergence from the full network's predictions. It needs no labels."""
    return -min(score.divergence, USELESS)


REWARDS: dict[str, Callable[[Score, float, str, float], float]] = {
    "divergence": divergence_reward,
    "accuracy": accuracy_reward,
    "loss": loss_reward,
    "flops": flops_reward,
}
