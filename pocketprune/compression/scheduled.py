"""What all controllers of masks share: they count epochs and steps, and choose anew where a rule's schedule says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from pocketprune.common.errors import UserError
from pocketprune.compression.schedules import Schedule
from pocketprune.training.checkpoint import compare_configs


class Policy(Protocol):
    """A policy, which can be told as plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain values."""
        ...


class Masks(Protocol):
    """Masks, which put their zeros back."""

    def enforce(self) -> None:
        """Put the zeros back."""
        ...


class ScheduledController(ABC):
    """Calls for masks at the moments of a training.

    Args:
        net: the network.
        policy: what is to be done.
        masks: what is masked at present.
        schedules: of the policy's rules, in their order.
    """

    def __init__(self, net: nn.Module, policy: Policy, masks: Masks, schedules: Sequence[Schedule]) -> None:
        self.net = net
        self._told_policy, self._enforced, self._schedules = policy, masks, list(schedules)
        self.epoch, self.steps = -1, 0
        self.levels = [0.0] * len(self._schedules)
        self._frozen = [False] * len(self._schedules)

    def epoch_step(self, epoch: int | None = None, optimizer: Optimizer | None = None) -> None:
        """Begin an epoch: choose masks anew where a schedule by epochs says so.

        Args:
            epoch: its number from 0; the next one by default.
            optimizer: what it remembers of masked places is set to zero.
        """
        self.epoch = self.epoch + 1 if epoch is None else epoch
        due = self._due("epoch", self.epoch)
        self._update(due + (self._due("step", 0) if self.steps == 0 else []), optimizer)

    def step(self, optimizer: Optimizer | None = None) -> None:
        """End a training step: put zeros back, and choose masks anew where a schedule by steps says so.

        Args:
            optimizer: what it remembers of masked places is set to zero where masks change.
        """
        self._settle()
        self.steps += 1
        self._update(self._due("step", self.steps), optimizer)

    @property
    def is_frozen(self) -> bool:
        """Whether masks stay as they are from now on."""
        return all(self._frozen)

    def freeze(self) -> None:
        """Let masks stay as they are, whatever the schedules say."""
        self._frozen = [True] * len(self._frozen)

    def enforce(self) -> None:
        """Put the zeros back."""
        self._enforced.enforce()

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs beside the network's own state: tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    @abstractmethod
    def _update(self, due: Sequence[tuple[int, float]], optimizer: Optimizer | None) -> None:
        """Choose the masks of some rules, given by number, at their levels."""

    def _settle(self) -> None:
        """Put zeros back after the optimizer's step."""
        self.enforce()

    def _due(self, unit: str, t: int) -> list[tuple[int, float]]:
        """Return (number, level) of the rules that choose anew at a time, and freeze those that do so no more."""
        due = []
        for number, schedule in enumerate(self._schedules):
            if schedule.unit == unit and not self._frozen[number] and schedule.changes(t):
                due.append((number, schedule.level(t)))
                self._frozen[number] = schedule.is_frozen(t)
        return due

    def _progress(self) -> dict[str, Any]:
        """Return the part of the state that says how far the schedules are."""
        return {
            "policy": self._told_policy.to_dict(),
            "epoch": self.epoch,
            "steps": self.steps,
            "levels": list(self.levels),
            "frozen": list(self._frozen),
        }

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what `_progress` returned.

        Raises:
            UserError: it is of another policy.
        """
        lines = compare_configs(dict(state["policy"]), self._told_policy.to_dict())
        if lines:
            raise UserError(f"of another policy: {'; '.join(lines[:3])}", argument="state")
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.levels, self._frozen = list(state["levels"]), list(state["frozen"])
