"""Pruning that survives a kill: its state in a checkpoint after each layer."""

import time
from contextlib import ExitStack
from typing import Any

from learners.context import RunContext
from learners.workdir import discard
from pocketprune.channel_pruning.state import StateError
from pocketprune.common.errors import UserError
from pocketprune.training.distributed import agree_to_stop, is_main
from pocketprune.training.stopping import Preempted, StopSignal


class PruningProgress:
    """A context inside which `save` keeps the states of a pruning.

    SIGTERM ends the run after the layer at hand, once that is saved. The clock "prune" takes the seconds of the whole
    pruning, those before it was resumed included, without those of the training between groups of layers.

    Attributes:
        state: what the interrupted run saved last; None where there was none.
    """

    def __init__(self, run: RunContext) -> None:
        self.run, self.checkpoints = run, run.checkpoints("prune")
        found = self.checkpoints.latest()
        self.state: dict[str, Any] | None = found.state.get("run", {}) if found else None
        self._before: float = found.state.get("seconds", 0.0) if found else 0.0

    def __enter__(self) -> "PruningProgress":
        self._began, self._tuned = time.perf_counter(), self.run.seconds["finetune"]
        self._stack = ExitStack()
        self._stop = self._stack.enter_context(StopSignal())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._stack.close()
        self.run.add_seconds("prune", self._seconds())
        if isinstance(error, StateError):
            raise UserError(f"{self.checkpoints.directory}: {error} (--overwrite starts over)") from None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state down. End the run if SIGTERM came, to any process."""
        step = state["done"] + state["tuned"]
        if is_main():
            self.checkpoints.save({"run": state, "seconds": self._seconds()}, step)
            discard(self.checkpoints.directory, [f"tune{number}" for number in range(state["tuned"])])
        if agree_to_stop(self._stop.requested, 0):
            raise Preempted(f"prune: SIGTERM came by layer {state['done']}; saved in {self.checkpoints.directory}")

    def _seconds(self) -> float:
        """Return the seconds of the whole pruning so far, without those of the training between groups."""
        tuning = self.run.seconds["finetune"] - self._tuned
        return self._before + time.perf_counter() - self._began - tuning
