"""Pruning that outlives a kill: its progress in checkpoints, after each layer."""

import time
from contextlib import ExitStack
from typing import Any

from learners.base import Learner
from learners.workdir import discard
from pocketprune.common.errors import UserError
from pocketprune.training.distributed import agree_to_stop, is_main
from pocketprune.training.stopping import Preempted, StopSignal


class PruningProgress:
    """Inside, `save` keeps a pruning's states; `state` is the one an earlier life left, or None.

    SIGTERM ends the run after the layer at hand, saved. The seconds of all lives go to the clock "prune", less those
    of the tuning between groups.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.checkpoints = learner, learner.checkpoints("prune")
        found = self.checkpoints.latest()
        self.state: dict[str, Any] | None = found.state.get("run", {}) if found else None
        self._before: float = found.state.get("seconds", 0.0) if found else 0.0

    def __enter__(self) -> "PruningProgress":
        self._began, self._elsewhere = time.perf_counter(), self.learner.seconds["finetune"]
        self._stack = ExitStack()
        self._stop = self._stack.enter_context(StopSignal())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._stack.close()
        self.learner.seconds["prune"] += self._seconds()
        if isinstance(error, UserError) and "state of an interrupted pruning" in str(error):
            raise UserError(f"{self.checkpoints.directory}: {error} (--overwrite starts over)") from None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state down; leave if SIGTERM came, to any process."""
        step = state["done"] + state["tuned"]
        if is_main():
            self.checkpoints.save({"run": state, "seconds": self._seconds()}, step)
            discard(self.checkpoints.directory, [f"tune{number}" for number in range(state["tuned"])])
        if agree_to_stop(self._stop.requested, 0):
            raise Preempted(f"prune: SIGTERM came by layer {state['done']}; saved in {self.checkpoints.directory}")

    def _seconds(self) -> float:
        tuning = self.learner.seconds["finetune"] - self._elsewhere
        return self._before + time.perf_counter() - self._began - tuning
