"""The scheduler of a controller: it counts epochs and steps, and sets levels where an epoch begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pocketprune.compat.nncf.settings import FilterPruning


class PruningScheduler:
    """Sets the level of each epoch.

    Args:
        given: the schedule.
        begin: is called with the level where an epoch begins.
        freeze: is called where masks are the last ones.

    Attributes:
        current_epoch, current_step: counted from 0; -1 before the first.
        target_level: the level at the end of the schedule, or the one that a search has set.
    """

    def __init__(self, given: FilterPruning, begin: Callable[[float], None], freeze: Callable[[], None]) -> None:
        self._given, self._begin, self._freeze = given, begin, freeze
        self._is_enabled = True
        self.current_epoch, self.current_step = -1, -1
        self.target_level = given.target

    def epoch_step(self, next_epoch: int | None = None) -> None:
        """Begin an epoch, the next one by default: choose masks anew, unless they are frozen."""
        self.current_epoch = self.current_epoch + 1 if next_epoch is None else next_epoch
        if self._is_enabled:
            self._begin(self.current_pruning_level)
            if self._given.timetable.is_frozen(self.current_epoch):
                self._freeze()

    def step(self, next_step: int | None = None) -> None:
        """Count a training step."""
        self.current_step = self.current_step + 1 if next_step is None else next_step

    @property
    def current_pruning_level(self) -> float:
        """The level of the current epoch; 0 without a schedule."""
        return self._given.level(self.current_epoch) if self._is_enabled else 0.0

    def disable(self) -> None:
        """Set no level any more."""
        self._is_enabled = False

    def get_state(self) -> dict[str, Any]:
        """Return the counters."""
        return {"current_step": self.current_step, "current_epoch": self.current_epoch}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `get_state` returned."""
        self.current_step, self.current_epoch = state["current_step"], state["current_epoch"]
