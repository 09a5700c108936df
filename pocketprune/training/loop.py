"""The training loop: any network, split, task; resumable to the bit on one CPU, the same under torchrun."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.allocation import keep_freed_memory
from pocketprune.training.checkpoint import Checkpoints, seed_everything
from pocketprune.training.metrics import NullRecorder, Recorder, Split, device_of
from pocketprune.training.state import TrainSettings, TrainState
from pocketprune.training.stopping import Preempted, StopSignal
from pocketprune.training.tasks import Classification, Task

OnEpoch = Callable[[nn.Module, int, int], None]


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        steps: of the whole training.
        loss, accuracy: means over its last summary interval, on augmented images in training mode.
        seconds: of the whole training, over all lives of the run, less what was lost with a kill.
        images_per_second: in this life; 0 if there was nothing left to do.
        resumed_from: the step at which this life began.
    """

    steps: int
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float
    resumed_from: int


class NonFiniteError(UserError):
    """The loss, or a weight, became infinite or NaN."""


def train(
    net: nn.Module,
    split: Split,
    settings: TrainSettings,
    *,
    device: torch.device | None = None,
    task: Task | None = None,
    recorder: Recorder | None = None,
    checkpoints: Checkpoints | None = None,
    extra: Mapping[str, Any] | None = None,
    label: str = "train",
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> TrainResult:
    """Train `net` in place; with `checkpoints`, go on from the last one, or return if that is the end.

    The global random generators are seeded with `settings.seed` plus the process's rank, so that a training
    depends on nothing that happened before it. With `ema_decay`, `net` ends with the averaged weights.

    Args:
        device: where to compute; the network is moved there. Its own device by default.
        task: what to minimise; cross-entropy by default.
        extra: primitives and tensors that go into every checkpoint, under "extra": the caller's own progress.
        label: the namespace of what is recorded (`train/loss`), and the title of the bar.
        on_epoch: called in every process after each epoch with (network to evaluate, epochs done, steps
            done).
    Raises:
        UserError: too few images; a batch that the processes cannot share evenly; a checkpoint of another
            network or of other settings; one that cannot be written.
        NonFiniteError: with the steps between which it happened, the last good checkpoint, and a hint.
        Preempted: SIGTERM came, and the state is saved.
    """
    device = device or device_of(net)
    net.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    seed_everything(settings.seed + distributed.rank())
    with ExitStack() as stack:
        stack.enter_context(_precision(settings, device))
        stack.enter_context(_memory_format(net, settings))
        stack.enter_context(distributed.synchronised_batch_norm(net, settings.sync_bn, device))
        state = TrainState.create(net, settings, steps_per_epoch(split, settings))
        state.restore(checkpoints.latest() if checkpoints else None)
        session = _Session(
            state,
            _forward(net, settings, device),
            split,
            task or Classification(settings.label_smoothing),
            device,
            recorder or NullRecorder(),
            checkpoints,
            dict(extra or {}),
            label,
            on_epoch,
        )
        result = session.run(stack.enter_context(StopSignal()), progress and distributed.is_main())
    distributed.broadcast_module(net)
    return result


def steps_per_epoch(split: Split, settings: TrainSettings) -> int:
    """Full batches in one pass over the split; in one process, a split smaller than a batch is one step."""
    world = distributed.world_size()
    if settings.batch_size % world:
        raise UserError(f"batch_size={settings.batch_size}: must be a multiple of the {world} processes")
    least = 1 if world == 1 else settings.batch_size
    if len(split) < least:
        raise UserError(
            f"training images: {len(split)} are too few; batch_size={settings.batch_size} on "
            f"{world} process(es) needs at least {least}"
        )
    return max(1, len(split) // settings.batch_size)


@contextmanager
def _precision(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """TF32 on or off on CUDA, inside only: the statistics of pruning must never meet it."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = settings.tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def _memory_format(net: nn.Module, settings: TrainSettings) -> Iterator[None]:
    """Channels-last weights inside only: code after the training may rely on ordinary strides."""
    if not settings.channels_last:
        yield
        return
    net.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        net.to(memory_format=torch.contiguous_format)


def _forward(net: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """The network as a step calls it: its gradients averaged over the processes, compiled."""
    forward = distributed.data_parallel(net, device)
    return torch.compile(forward) if settings.compile else forward


@dataclass
class _Session:
    """One call of train(): one life of a run."""

    state: TrainState
    forward: nn.Module
    split: Split
    task: Task
    device: torch.device
    recorder: Recorder
    checkpoints: Checkpoints | None
    extra: dict[str, Any]
    label: str
    on_epoch: OnEpoch | None

    def run(self, stop: StopSignal, progress: bool) -> TrainResult:
        state = self.state
        resumed = self._finite_until = state.step
        self._began = time.perf_counter() - state.seconds
        self.forward.train()
        look = {"disable": not progress, "leave": False, "delay": 1}
        with tqdm(desc=self.label, total=state.total, initial=resumed, **look) as bar:
            for images, labels in self._batches():
                self._step(images, labels)
                bar.update()
                self._after_step(bar, stop)
        seconds = time.perf_counter() - self._began
        images = (state.total - resumed) * state.settings.batch_size
        rate = images / (seconds - state.seconds) if images else 0.0
        state.use_average()
        return TrainResult(state.total, *state.means, seconds, rate, resumed)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """From the state's step to the last; the split gives there what it would have given anyway."""
        state, settings, world = self.state, self.state.settings, distributed.world_size()
        while state.step < state.total:
            first = state.step
            epoch, start = divmod(first, state.per_epoch)
            count = min(state.per_epoch - start, state.total - first)
            yield from islice(
                self.split.batches(
                    settings.batch_size // world,
                    seed=settings.seed,
                    epoch=epoch,
                    start=start,
                    shuffle=True,
                    augment=settings.augment,
                    drop_last=len(self.split) >= settings.batch_size,
                    rank=distributed.rank(),
                    world_size=world,
                ),
                count,
            )
            if state.step != first + count:
                raise RuntimeError(f"epoch {epoch}: the split gave {state.step - first} batches of {count}")

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One update. Nothing here waits for the device."""
        settings = self.state.settings
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        images = images.to(self.device, non_blocking=True, memory_format=layout)
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            loss, logits = self.task(self.forward, images, labels)
        loss.backward()
        self.state.update()
        correct = (logits.detach().argmax(1) == labels).sum()
        count = torch.full_like(correct, len(labels))
        self.state.sums += torch.stack([loss.detach() * len(labels), correct, count])

    def _after_step(self, bar: tqdm, stop: StopSignal) -> None:
        state, settings = self.state, self.state.settings
        last = state.step == state.total
        if last or state.step % settings.summ_step == 0:
            self._summarise(bar)
        if self.on_epoch and (last or state.step % state.per_epoch == 0):
            self.on_epoch(state.averaged, math.ceil(state.step / state.per_epoch), state.step)
            self.forward.train()
        stopped = distributed.agree_to_stop(stop.requested, state.step) and not last
        if last or stopped or state.step % settings.save_step == 0:
            self._save()
        if stopped:
            saved = f"; saved in {self.checkpoints.directory}" if self.checkpoints else ""
            raise Preempted(f"{self.label}: SIGTERM came by step {state.step} of {state.total}{saved}")

    def _summarise(self, bar: tqdm) -> None:
        """Read the sums from the device, the only waiting of an interval, and write down what they say."""
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

    def _refuse_non_finite(self, value: float) -> None:
        """A NaN of any step of the interval is still in the sum: nothing had to be read meanwhile."""
        if math.isfinite(value):
            self._finite_until = self.state.step
            return
        newest = self.checkpoints.newest() if self.checkpoints else "no checkpoints are kept"
        raise NonFiniteError(
            f"{self.label}: the loss or a weight is not finite, since a step from {self._finite_until + 1} "
            f"to {self.state.step}; {newest}; lower lrn_rate_init, or set a warm-up or clip_norm"
        )

    def _save(self) -> None:
        """Save from the first process, once losses and weights are known to be finite in all of them."""
        if self.checkpoints is None:
            return
        self._refuse_non_finite(float(distributed.all_reduce_sum(self.state.health())))
        own = {"seconds": time.perf_counter() - self._began, "extra": self.extra}
        saved = self.state.state_dict() | own
        if distributed.is_main():
            self.checkpoints.save(saved, self.state.step)
