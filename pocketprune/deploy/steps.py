"""The steps of a saved network: for each kind, how it is written, read and done again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.steps import PART, Step, carry_steps, steps_of
from pocketprune.thinning.recipes import CHANNELS
from pocketprune.thinning.stored_recipes import apply_recipe, parse_recipe


@dataclass(frozen=True)
class StepKind:
    """How one kind of step is stored.

    Attributes:
        version: of the plain data; raised when `write` changes.
        write: a step's data -> plain values and tensors.
        read: (plain values, how a message begins) -> the step's data; raises UserError for what is malformed.
        apply: (network, data, how a message begins) -> a copy of the network with the step done again, its numbers
            any; raises UserError where the data do not fit the network.
    """

    version: int
    write: Callable[[Any], Any]
    read: Callable[[Any, str], Any]
    apply: Callable[[nn.Module, Any, str], nn.Module]


def _write_part(part: tuple[str, tuple[Step, ...]]) -> dict[str, Any]:
    name, steps = part
    return {"name": name, "steps": write_steps(steps)}


def _read_part(plain: Any, source: str) -> tuple[str, tuple[Step, ...]]:
    if not isinstance(plain, dict) or set(plain) != {"name", "steps"} or not isinstance(plain["name"], str):
        raise UserError(f"{source}: tampered with: the step of a part is malformed")
    return plain["name"], tuple(read_steps(plain["steps"], source))


def _apply_part(net: nn.Module, part: tuple[str, tuple[Step, ...]], source: str) -> nn.Module:
    """Return a copy of a network in which one part, wherever it is used, has its steps done again."""
    name, steps = part
    net = copy.deepcopy(net)
    places = dict(net.named_modules(remove_duplicate=False))
    if not name or name not in places:
        raise UserError(f"{source}: dense_net ({type(net).__name__}) has no part '{name}', which was pruned")
    dense = places[name]
    small = apply_steps(dense, steps, source)
    for place, module in places.items():
        if module is dense:
            net.set_submodule(place, small)
    return net


STEPS: dict[str, StepKind] = {
    CHANNELS: StepKind(1, write=dataclasses.asdict, read=parse_recipe, apply=apply_recipe),
    PART: StepKind(1, write=_write_part, read=_read_part, apply=_apply_part),
}


def write_steps(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return steps as plain values and tensors."""
    return [{"kind": s.kind, "version": STEPS[s.kind].version, "data": STEPS[s.kind].write(s.data)} for s in steps]


def read_steps(entries: Any, source: str) -> list[Step]:
    """Return the steps that a file's plain values stand for.

    Args:
        entries: what `write_steps` returned, as read from a file.
        source: how the message of an error begins.

    Raises:
        UserError: a step is malformed, or of a kind or version that is not known here.
    """
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(f"{source}: tampered with: its steps are malformed")
    return [_read_step(entry, source) for entry in entries]


def apply_steps(net: nn.Module, steps: Iterable[Step], source: str) -> nn.Module:
    """Return a copy of a network with all steps done again, which it then carries; its numbers are any."""
    for step in steps:
        before = steps_of(net)
        net = STEPS[step.kind].apply(net, step.data, source)
        if step.kind != PART:  # which carries its own
            net = carry_steps(net, (*before, step))
    return net


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"kind", "version", "data"}
        and isinstance(entry["kind"], str)
        and type(entry["version"]) is int
        and entry["version"] >= 1
    )


def _read_step(entry: dict[str, Any], source: str) -> Step:
    kind, version = entry["kind"], entry["version"]
    if kind not in STEPS or version > STEPS[kind].version:
        known = ", ".join(f"{name} up to version {known.version}" for name, known in STEPS.items())
        raise UserError(
            f"{source}: written by a newer PocketPrune (a step '{kind}' of version {version}; this one reads {known}); "
            "upgrade pocketprune"
        )
    return Step(kind, STEPS[kind].read(entry["data"], source))
