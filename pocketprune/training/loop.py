"""The training loop: any network, any split, any task; resumable to the bit on one CPU, the same under torchrun."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pocketprune.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.checkpoint import Checkpoints, seed_everything
from pocketprune.training.distributed import Preempted, StopSignal
from pocketprune.training.metrics import NullRecorder, Recorder, Split, device_of
from pocketprune.training.state import TrainSettings, TrainState

OnEpoch = Callable[[nn.Module, int, int], None]


class Task(Protocol):
    """What is minimised: (network, images, labels) -> (mean loss of the batch, a scalar; logits (b, classes))."""

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy, with `label_smoothing` of the target mass spread evenly over all classes (arXiv 1512.00567, sec. 7)."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing={self.label_smoothing}: must lie in [0, 1)")

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = net(images).float()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


@dataclass(frozen=True)
class TrainResult:
    """A finished training: loss and accuracy are means over the last summary interval, seconds those of this process's life."""

    steps: int
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float
    resumed_from: int


class NonFiniteLoss(UserError):
    """The loss, or a weight, became infinite or NaN."""


def train(
    net: nn.Module, split: Split, settings: TrainSettings, *, device: torch.device | None = None, task: Task | None = None,
    recorder: Recorder | None = None, checkpoints: Checkpoints | None = None, extra: Mapping[str, Any] | None = None,
    label: str = "train", progress: bool = True, on_epoch: OnEpoch | None = None,
) -> TrainResult:
    """Train `net` in place on `split`; with `checkpoints`, go on from the last one, or return at once if it is the end.

    The global random generators are seeded with `settings.seed` (plus the process's rank), so that a run depends on nothing
    that happened before it. At the end `net` holds the averaged weights if `ema_decay` is set.

    Args:
        device: where to compute; the network is moved there. Its own device by default.
        task: what to minimise; cross-entropy by default.
        extra: primitives and tensors that go into every checkpoint, under "extra" (the caller's own progress).
        label: the namespace of what is recorded (`train/loss`) and the title of the bar.
        on_epoch: called after each epoch, in every process, with (network to evaluate, epochs done, steps done).
    Raises:
        UserError: an empty split, fewer images than processes need, a checkpoint of another network or other settings,
            or one that cannot be written.
        NonFiniteLoss: with the interval of steps, the last good checkpoint, and a hint.
        Preempted: SIGTERM came; the state is saved.
    """
    device = device or device_of(net)
    net.to(device)
    seed_everything(settings.seed + distributed.rank())
    with ExitStack() as stack:
        stack.enter_context(_precision(settings, device))
        stack.enter_context(_memory_format(net, settings))
        stack.enter_context(distributed.synchronised_batch_norm(net, settings.sync_bn, device))
        state = TrainState.create(net, settings, steps_per_epoch(split, settings))
        session = _Session(state, _forward(net, settings, device), split, task or Classification(settings.label_smoothing),
                           device, recorder or NullRecorder(), checkpoints, dict(extra or {}), label)
        stop = stack.enter_context(StopSignal())
        result = session.run(stop, progress and distributed.is_main(), on_epoch)
    distributed.broadcast_module(net)
    return result


def steps_per_epoch(split: Split, settings: TrainSettings) -> int:
    """Full batches in one pass; a split smaller than one batch is one step."""
    world = distributed.world_size()
    if settings.batch_size % world:
        raise UserError(f"batch_size={settings.batch_size}: must be a multiple of the {world} processes")
    if len(split) < max(1, world if world == 1 else settings.batch_size):
        raise UserError(f"{len(split)} training images are too few for batch_size={settings.batch_size} "
                        f"on {world} process(es)")
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
    """The network as called in a step: averaged over processes, compiled."""
    forward = distributed.data_parallel(net, device)
    return torch.compile(forward) if settings.compile else forward


@dataclass
class _Session:
    """One call of train()."""

    state: TrainState
    forward: nn.Module
    split: Split
    task: Task
    device: torch.device
    recorder: Recorder
    checkpoints: Checkpoints | None
    extra: dict[str, Any]
    label: str
    checked: int = 0  # the last step known to be finite
    means: tuple[float, float] = (math.nan, math.nan)  # loss and accuracy of the last interval

    def run(self, stop: StopSignal, progress: bool, on_epoch: OnEpoch | None) -> TrainResult:
        state = self.state
        resumed = self.checked = state.restore(self.checkpoints.latest() if self.checkpoints else None)
        self.forward.train()
        began = time.perf_counter()
        with tqdm(desc=self.label, initial=resumed, total=state.total, disable=not progress, leave=False, delay=1) as bar:
            for images, labels in self._batches():
                self._step(images, labels)
                bar.update()
                self._after_step(bar, on_epoch, stop)
        seconds = time.perf_counter() - began
        images = (state.total - resumed) * state.settings.batch_size
        state.use_average()
        return TrainResult(state.total, *self.means, seconds, images / seconds, resumed)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """From the state's step to the last; the split restarts wherever that is, with the order it would have had."""
        state, settings, world = self.state, self.state.settings, distributed.world_size()
        while state.step < state.total:
            epoch, start = divmod(state.step, state.per_epoch)
            count = min(state.per_epoch - start, state.total - state.step)
            batches = self.split.batches(
                settings.batch_size // world, seed=settings.seed, epoch=epoch, start=start, shuffle=True,
                augment=settings.augment, drop_last=len(self.split) >= settings.batch_size, rank=distributed.rank(),
                world_size=world)
            before = state.step
            yield from islice(batches, count)
            if state.step != before + count:
                raise RuntimeError(f"epoch {epoch}: the split gave {state.step - before} batches of {count}")

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One update. Nothing here waits for the device."""
        state, settings = self.state, self.state.settings
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        images = images.to(self.device, non_blocking=True, memory_format=layout)
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            loss, logits = self.task(self.forward, images, labels)
        loss.backward()
        state.update()
        correct = (logits.detach().argmax(1) == labels).sum()
        state.sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(correct, len(labels))])

    def _after_step(self, bar: tqdm, on_epoch: OnEpoch | None, stop: StopSignal) -> None:
        state, settings = self.state, self.state.settings
        last = state.step == state.total
        if last or state.step % settings.summ_step == 0:
            self._summarise(bar)
        if on_epoch and (last or state.step % state.per_epoch == 0):
            on_epoch(state.averaged, -(-state.step // state.per_epoch), state.step)
            self.forward.train()
        stopped = stop.agreed(state.step) and not last
        if last or stopped or state.step % settings.save_step == 0:
            self._save()
        if stopped:
            raise Preempted(f"{self.label}: stopped by SIGTERM after step {state.step} of {state.total}"
                            + (f"; saved in {self.checkpoints.directory}" if self.checkpoints else ""))

    def _summarise(self, bar: tqdm) -> None:
        """Read the sums from the device, the only waiting of an interval, and write down what they say."""
        state = self.state
        loss, correct, count = distributed.all_reduce_sum(state.sums.clone()).tolist()
        self._refuse_non_finite(loss)
        state.sums.zero_()
        self.means = loss / count, correct / count
        rate = state.optimizer.param_groups[0]["lr"]
        for key, value in (("loss", self.means[0]), ("accuracy", self.means[1]), ("learning_rate", rate)):
            self.recorder.record(f"{self.label}/{key}", value, state.step)
        bar.set_postfix(loss=f"{self.means[0]:.3f}", acc=f"{self.means[1]:.3f}", lr=f"{rate:.2g}", refresh=False)

    def _refuse_non_finite(self, loss: float) -> None:
        """A NaN in any step of the interval is still in the sum: nothing had to be read meanwhile."""
        if math.isfinite(loss):
            self.checked = self.state.step
            return
        saved = self.checkpoints.steps() if self.checkpoints else []
        good = f"the last good checkpoint is {self.checkpoints.path(saved[-1])}" if saved else "no checkpoint was written yet"
        raise NonFiniteLoss(
            f"{self.label}: the loss is not finite between steps {self.checked + 1} and {self.state.step}; {good}; "
            "try a lower lrn_rate_init, a warm-up, or clip_norm")

    def _save(self) -> None:
        """Save in the first process, once every process knows that loss and weights are finite."""
        if self.checkpoints is None:
            return
        self._refuse_non_finite(float(distributed.all_reduce_sum(self.state.health())))
        saved = self.state.state_dict() | {"extra": self.extra}
        if distributed.is_main():
            self.checkpoints.save(saved, self.state.step)
