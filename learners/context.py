"""What one run has: its settings, its data, its network, and where it writes, speaks and counts time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from config import Config
from datasets import Dataset
from learners.identity import Identity, identity_of
from pocketprune.channel_pruning.tasks import Task
from pocketprune.common.figures import require_plots
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import Recorder, create_recorder

CLOCKS = ("train", "prune", "search", "finetune", "evaluate")


@dataclass
class RunContext:
    """What the functions of a learner take. Under several processes all compute; the first one writes and speaks.

    Attributes:
        net: the freshly initialised network, which gives the architecture.
        task: what the network is for, where that is not the classification of the data set's images.
        seconds: clock -> seconds, a resumed run's earlier ones included: "seconds" of report.json.
    """

    config: Config
    dataset: Dataset
    net: nn.Module
    device: torch.device
    task: Task | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CLOCKS, 0.0))

    def __post_init__(self) -> None:
        """Move the network to the device. Raises UserError for pictures that cannot be drawn."""
        if self.config.run.plot:
            require_plots()
        self.net = self.net.to(self.device)

    @property
    def workdir(self) -> Path:
        """The folder that the run writes to."""
        return self.config.workdir

    @property
    def metric(self) -> str:
        """The key of the value that tells how good a network is; "" for a task without a metric."""
        if self.task is None:
            return "accuracy"
        return self.task.name if self.task.metric is not None else ""

    @property
    def report_path(self) -> Path:
        """The file of the run's report."""
        return self.workdir / "report.json"

    @cached_property
    def recorder(self) -> Recorder:
        """TensorBoard, opened when there is first something to show."""
        return create_recorder(self.workdir / "tensorboard")

    @cached_property
    def identity(self) -> Identity:
        """What tells the run's images, network and files from others."""
        return identity_of(self.config, self.dataset, self.net)

    def checkpoints(self, phase: str) -> Checkpoints:
        """Return the checkpoints of one phase of the run."""
        return Checkpoints(self.workdir / "checkpoints", name=phase, keep=self.config.train.keep_checkpoints)

    def say(self, text: str) -> None:
        """Print, in the first process."""
        if is_main():
            print(text, flush=True)

    @contextmanager
    def timed(self, clock: str) -> Iterator[None]:
        """Add the seconds spent inside to a clock."""
        began = time.perf_counter()
        yield
        self.add_seconds(clock, time.perf_counter() - began)

    def add_seconds(self, clock: str, seconds: float) -> None:
        """Add seconds to a clock, which may be a new one."""
        self.seconds[clock] = self.seconds.get(clock, 0.0) + seconds

    def images(self, count: int) -> Tensor:
        """Return the first (at most `count`) validation images (n, C, H, W), normalised, on the device."""
        return next(iter(self.dataset.val.batches(count)))[0].to(self.device)

    @cached_property
    def example(self) -> Tensor:
        """Two images (2, C, H, W) to trace networks with."""
        return self.images(2)
