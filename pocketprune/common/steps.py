"""What was done to a network, step by step, as the network itself carries it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

ATTRIBUTE = "_pocketprune_steps"


@dataclass(frozen=True)
class Step:
    """One entry of a network's history.

    Attributes:
        kind: what was done: a key of `pocketprune.deploy.steps.STEPS`.
        data: what doing it again takes, in terms of the network before this step.
    """

    kind: str
    data: Any


def steps_of(net: nn.Module) -> tuple[Step, ...]:
    """Return the steps that a network carries, the first one first; none for a dense network."""
    steps = getattr(net, ATTRIBUTE, None)
    if steps is None and isinstance(net, fx.GraphModule):  # its copies keep `meta`, and no other attribute
        steps = net.meta.get(ATTRIBUTE)
    return steps or ()


def carry_steps(net: nn.Module, steps: Iterable[Step]) -> nn.Module:
    """Let a network carry these steps, in place of those it carried. Return the network."""
    setattr(net, ATTRIBUTE, tuple(steps))
    if isinstance(net, fx.GraphModule):
        net.meta[ATTRIBUTE] = tuple(steps)
    return net
