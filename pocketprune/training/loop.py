"""The training loop, for any network, split and objective. A resumed one equals an uninterrupted one to the bit."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pocketprune.common.devices import device_of
from pocketprune.training import distributed
from pocketprune.training.allocation import keep_freed_memory
from pocketprune.training.average import MovingAverage
from pocketprune.training.batches import steps_per_epoch, training_batches
from pocketprune.training.best import Best, BestState, Judge
from pocketprune.training.callbacks import Callback, CallbackList
from pocketprune.training.checkpoint import Checkpoints, seed_everything
from pocketprune.training.computing import as_called, memory_format, on_device, precision
from pocketprune.training.log import TrainLog
from pocketprune.training.metrics import NullRecorder, Recorder, Split
from pocketprune.training.objectives import Classification, Objective
from pocketprune.training.state import TrainSettings, TrainState
from pocketprune.training.stopping import StopSignal


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        steps: of the whole training.
        loss, accuracy: means over its last summary interval, on augmented images in training mode. Penalties are
            part of the loss.
        seconds: of the whole training, with those before it was resumed, without those that a kill lost.
        images_per_second: since it was last resumed; 0 if there was nothing left to do.
        resumed_from: the step at which it was last resumed; 0 if it never was.
        best: the state that the network ended with; None without a judge.
    """

    steps: int
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float
    resumed_from: int
    best: Best | None = None


def train(
    net: nn.Module,
    split: Split,
    settings: TrainSettings,
    *,
    device: torch.device | None = None,
    objective: Objective | None = None,
    callbacks: Sequence[Callback] = (),
    judge: Judge | None = None,
    recorder: Recorder | None = None,
    checkpoints: Checkpoints | None = None,
    extra: Mapping[str, Any] | None = None,
    label: str = "train",
    progress: bool = True,
) -> TrainResult:
    """Train `net` in place. With `checkpoints`, resume from the last one, and return at once if that is the end.

    The global random generators are seeded with `settings.seed` plus the process's rank, so that a training
    depends on nothing that happened before it. With `ema_decay`, `net` ends with the averaged weights.

    Args:
        net: the network.
        split: its training images.
        settings: how to train.
        device: where to compute; the network is moved there. Its own device by default.
        objective: what to minimise; cross-entropy by default.
        callbacks: what else takes part, in this order; a moving average by `ema_decay` comes last.
        judge: measures the network at the start and after each epoch; `net` ends with the best of these states. By
            default it ends with the last one.
        recorder: where means are written at intervals; nowhere by default.
        checkpoints: where the state is saved; nowhere by default.
        extra: primitives and tensors that go into every checkpoint, under "extra": the caller's own progress.
        label: the namespace of what is recorded (`train/loss`), and the title of the bar.
        progress: show a bar.

    Returns:
        What the training ended with.

    Raises:
        UserError: too few images; a batch that the processes cannot share evenly; two callbacks of one name; a
            checkpoint of another network, of other settings or of other callbacks; one that cannot be written.
        NonFiniteError: with the steps between which it happened, the last good checkpoint, and a hint.
        Preempted: SIGTERM came, and the state is saved.
        KeyboardInterrupt: Ctrl-C came; with `checkpoints`, once the state is saved, unless it comes twice.
    """
    device = device or device_of(net)
    average = MovingAverage(settings.ema_decay) if settings.ema_decay else None
    best = BestState(judge, average.applied if average else nullcontext) if judge else None
    taking_part = CallbackList([*callbacks, *filter(None, (best, average))])
    net.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    seed_everything(settings.seed + distributed.rank())
    with ExitStack() as stack:
        stack.enter_context(precision(settings, device))
        stack.enter_context(memory_format(net, settings))
        stack.enter_context(distributed.synchronised_batch_norm(net, settings.sync_bn, device))
        state = TrainState.create(net, settings, steps_per_epoch(split, settings), taking_part)
        taking_part.on_start(state.context)
        stack.callback(lambda: taking_part.on_end(state.context))
        state.restore(checkpoints.latest() if checkpoints else None)
        log = TrainLog(state, label, recorder or NullRecorder(), checkpoints, dict(extra or {}))
        stop = stack.enter_context(StopSignal(interrupts=checkpoints is not None))
        objective = objective or Classification(settings.label_smoothing)
        loop = _Loop(state, objective, as_called(net, settings, device), device, log, stop)
        batches = training_batches(split, settings, state.step, state.total)
        result = loop.run(batches, show=progress and distributed.is_main())
    distributed.broadcast_module(net)
    return replace(result, best=best.best) if best else result


@dataclass(frozen=True)
class _Loop:
    """One call of `train`."""

    state: TrainState
    objective: Objective
    forward: nn.Module
    device: torch.device
    log: TrainLog
    stop: StopSignal

    def run(self, batches: Iterable[tuple[Tensor, Tensor]], *, show: bool) -> TrainResult:
        """Do the remaining steps."""
        state, resumed_from = self.state, self.state.step
        self.forward.train()
        look = {"disable": not show, "leave": False, "delay": 1}
        with tqdm(desc=self.log.label, total=state.total, initial=resumed_from, **look) as bar:
            for images, labels in batches:
                self._step(images, labels)
                bar.update()
                self._between_steps(bar)
        seconds = self.log.seconds()
        images_seen = (state.total - resumed_from) * state.settings.batch_size
        rate = images_seen / (seconds - state.seconds) if images_seen else 0.0
        return TrainResult(state.total, *state.means, seconds, rate, resumed_from)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """Do one update. Nothing here waits for the device."""
        state, callbacks = self.state, self.state.callbacks
        images, labels = on_device(images, labels, state.settings, self.device)
        state.set_rate()
        callbacks.before_step(state.context)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=state.settings.amp == "bf16"):
            loss, logits = self.objective(self.forward, images, labels)
        penalty = callbacks.penalty(state.context)
        loss = loss if penalty is None else loss + penalty
        loss.backward()
        callbacks.after_backward(state.context)
        state.update()
        callbacks.after_step(state.context)
        state.count(loss, logits, labels)

    def _between_steps(self, bar: tqdm) -> None:
        """Record the means, save and stop, each where it is due."""
        state, settings = self.state, self.state.settings
        last = state.finished
        if last or state.step % settings.summ_step == 0:
            self.log.summarise(bar)
        if state.ends_epoch():
            state.callbacks.on_epoch(state.context)
            self.forward.train()
        stopped = distributed.agree_to_stop(self.stop.requested, state.step) and not last
        if last or stopped or state.step % settings.save_step == 0:
            self.log.save()
        if stopped:
            where = f"; saved in {self.log.checkpoints.directory}" if self.log.checkpoints else ""
            raise self.stop.stopped(self.log.label, f"step {state.step} of {state.total}{where}")
