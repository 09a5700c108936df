"""What was done to a network, step by step, as the network itself carries it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from pocketprune.common.errors import UserError

ATTRIBUTE = "_pocketprune_steps"
WITHIN = "_pocketprune_within"  # marks the modules inside a network that carries steps
INTEGERS = "integers"  # the kind of the step by which a network is in integers
PART = "part"  # the kind of a step that is (name of a part, its steps)


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
    """Return the steps that a network and its parts carry, the first one first; none for a dense network.

    The steps of a part, a network that was pruned by itself, follow as one step of the whole. Each part that is inside
    another one is among its steps.
    """
    parts = [(name, module) for name, module in net.named_modules() if name and _own_steps(module)]
    outer = [part for part in parts if not any(_is_inside(part[0], name) for name, _ in parts)]
    return (*_own_steps(net), *(Step(PART, (name, steps_of(module))) for name, module in outer))


def carry_steps(net: nn.Module, steps: Iterable[Step]) -> nn.Module:
    """Let a network carry these steps, in place of those that it and its parts carried. Return the network."""
    steps = tuple(steps)
    for name, module in net.named_modules():
        vars(module).pop(ATTRIBUTE, None)
        if isinstance(module, fx.GraphModule):
            module.meta.pop(ATTRIBUTE, None)
        if name and steps:
            setattr(module, WITHIN, True)
    setattr(net, ATTRIBUTE, steps)
    if isinstance(net, fx.GraphModule):
        net.meta[ATTRIBUTE] = steps
    return net


def in_integers(net: nn.Module) -> bool:
    """Return whether a network was converted to integers."""
    return any(step.kind == INTEGERS for step in steps_of(net))


def refuse_integers(net: nn.Module) -> None:
    """Raise UserError for a network that is in integers already."""
    if in_integers(net):
        raise UserError("it is in integers already; a network in floats is accepted", argument="net")


def torn_out(net: nn.Module) -> list[str]:
    """Return the names of modules that were taken out of a pruned network, and have lost their history with it.

    The network itself has the name "".
    """
    carrying = [name for name, module in net.named_modules() if _own_steps(module)]
    within = [name for name, module in net.named_modules() if getattr(module, WITHIN, False)]
    return [name for name in within if not any(_is_inside(name, other) for other in carrying)]


def _is_inside(name: str, other: str) -> bool:
    return name != other and (not other or name.startswith(f"{other}."))


def _own_steps(module: nn.Module) -> tuple[Step, ...]:
    steps = getattr(module, ATTRIBUTE, None)
    if steps is None and isinstance(module, fx.GraphModule):  # its copies keep `meta`, and no other attribute
        steps = module.meta.get(ATTRIBUTE)
    return steps or ()
