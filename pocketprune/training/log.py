"""What a training writes while it runs: its means at intervals, and its checkpoints. No checkpoint holds a NaN."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.metrics import Recorder
from pocketprune.training.state import TrainState


class NonFiniteError(UserError):
    """The loss, or a weight, became infinite or NaN."""


@dataclass
class TrainLog:
    """The place where one training, perhaps a resumed one, writes its means and its state.

    Attributes:
        label: the namespace of what is recorded (`train/loss`).
        extra: the caller's own entries of every checkpoint.
        finite_until: the last step known to have left losses and weights finite.
        began: the time of time.perf_counter at which the training would have begun without an interruption.
    """

    state: TrainState
    label: str
    recorder: Recorder
    checkpoints: Checkpoints | None
    extra: dict[str, Any]
    finite_until: int = field(init=False)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.finite_until = self.state.step
        self.began = time.perf_counter() - self.state.seconds

    def seconds(self) -> float:
        """Return the seconds of the whole training so far, without those that a kill lost."""
        return time.perf_counter() - self.began

    def summarise(self, bar: tqdm) -> None:
        """Read the sums from the device and record the means. Only this waits for the device."""
        state = self.state
        loss, correct, count = distributed.all_reduce_sum(state.sums.clone()).tolist()
        self._refuse_non_finite(loss)
        state.sums.zero_()
        state.means = loss / count, correct / count
        rate = state.settings.lrn_rate * state.settings.schedule(state.step - 1, state.total)
        for key, value in zip(("loss", "accuracy", "learning_rate"), (*state.means, rate), strict=True):
            self.recorder.record(f"{self.label}/{key}", value, state.step)
        loss, accuracy = state.means
        bar.set_postfix(loss=f"{loss:.3f}", acc=f"{accuracy:.3f}", lr=f"{rate:.2g}", refresh=False)

    def save(self) -> None:
        """Save from the first process, if losses and weights are finite in all of them.

        Raises:
            NonFiniteError: they are not; nothing is saved.
        """
        if self.checkpoints is None:
            return
        self._refuse_non_finite(float(distributed.all_reduce_sum(self.state.health())))
        saved = self.state.state_dict() | {"seconds": self.seconds(), "extra": self.extra}
        if distributed.is_main():
            self.checkpoints.save(saved, self.state.step)

    def _refuse_non_finite(self, value: float) -> None:
        """Raise NonFiniteError for a NaN. The sum keeps that of any step since the last reading."""
        if math.isfinite(value):
            self.finite_until = self.state.step
            return
        newest = self.checkpoints.newest() if self.checkpoints else "no checkpoints are kept"
        raise NonFiniteError(
            f"{self.label}: the loss or a weight is not finite, since a step from {self.finite_until + 1} "
            f"to {self.state.step}; {newest}; lower the learning rate, or set a warm-up or clip_norm"
        )
