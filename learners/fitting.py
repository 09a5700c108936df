"""Training a network of the run, resumable, its seconds on a clock."""

from collections.abc import Sequence

from torch import nn

from learners.context import RunContext
from pocketprune.training.callbacks import Callback
from pocketprune.training.distillation import Distillation
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from pocketprune.training.tasks import Classification, Task


def fit(
    run: RunContext,
    net: nn.Module,
    phase: str,
    settings: TrainSettings,
    clock: str,
    *,
    teacher: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train `net` in place, or go on with its training.

    Args:
        phase: the name of its checkpoints and of its curves.
        clock: takes the seconds of the whole training, those before it was resumed included.
        teacher: the network whose softened outputs are learned too.
        callbacks: what else takes part in the training.
    """
    run.say(f"Training ({phase}): {settings.epochs:g} epochs of {len(run.dataset.train)} images")
    result = train(
        net,
        run.dataset.train,
        settings,
        device=run.device,
        task=_task(run, settings, teacher),
        recorder=run.recorder,
        checkpoints=run.checkpoints(phase),
        label=phase,
        callbacks=callbacks,
    )
    run.add_seconds(clock, result.seconds)


def _task(run: RunContext, settings: TrainSettings, teacher: nn.Module | None) -> Task:
    """Return what the training minimises: the cross-entropy, and the distance to a teacher where there is one."""
    task = Classification(settings.label_smoothing)
    if teacher is None:
        return task
    flags = run.config.distillation
    return Distillation(
        task, teacher, weight=flags.loss_w_dst, temperature=flags.tempr_dst, scale_gradient=flags.dst_scale_gradient
    )
