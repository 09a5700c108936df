"""Training a network of the run, resumable, its seconds on a clock."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from learners.context import RunContext
from pocketprune.compression.scheduled import ScheduledController
from pocketprune.training.best import Best, Quality
from pocketprune.training.callbacks import Callback
from pocketprune.training.distillation import Distillation
from pocketprune.training.loop import TrainResult, train
from pocketprune.training.metrics import evaluate
from pocketprune.training.objectives import Classification, Objective
from pocketprune.training.state import TrainSettings


def fit(
    run: RunContext,
    net: nn.Module,
    phase: str,
    settings: TrainSettings,
    clock: str,
    *,
    teacher: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    keep_best: bool = False,
    masks: ScheduledController | None = None,
    objective: Objective | None = None,
) -> TrainResult:
    """Train `net` in place, or go on with its training.

    Args:
        phase: the name of its checkpoints and of its curves.
        clock: takes the seconds of the whole training, those before it was resumed included.
        teacher: the network whose softened outputs are learned too.
        callbacks: what else takes part in the training.
        keep_best: end with the best state on the validation split, the start included, and not with the last one.
        masks: what masks weights meanwhile; only states with its last masks are compared, if there are such.
        objective: what to minimise; by default the cross-entropy, and the distance to the teacher.
    """

    def judged(net: nn.Module) -> Quality:
        if run.task is not None and run.task.metric is not None:
            return (run.task.measure(net),)
        found = evaluate(net, run.dataset.val, run.config.data.batch_size_eval, device=run.device, progress=False)
        return masked_quality(found.accuracy, found.loss, masks)

    run.say(f"Training ({phase}): {settings.epochs:g} epochs of {len(run.dataset.train)} images")
    result = train(
        net,
        run.dataset.train,
        settings,
        device=run.device,
        objective=objective or _objective(run, settings, teacher),
        recorder=run.recorder,
        checkpoints=run.checkpoints(phase),
        label=phase,
        callbacks=callbacks,
        judge=judged if keep_best and len(run.dataset.val) else None,
    )
    run.add_seconds(clock, result.seconds)
    if result.best is not None:
        run.say(f"Training ({phase}): {kept_state(result.best)}")
    return result


def masked_quality(accuracy: float, loss: float, masks: ScheduledController | None) -> Quality:
    """Return a network's quality; while masks still change, any later state is the better one."""
    measured = (accuracy, -loss)
    return measured if masks is None else (math.inf if masks.is_frozen else float(masks.steps), *measured)


def kept_state(best: Best) -> str:
    """Return which state a training ended with, in words."""
    when = f"after epoch {best.epoch}" if best.step else "before the training: none after an epoch was better"
    return f"kept the state {when}; on the validation images {_words(best.quality)}, at the start {_words(best.start)}"


def best_entry(result: TrainResult) -> dict[str, Any]:
    """Return the "finetune" of report.json: which state was kept, and what was measured on the validation split."""
    best = result.best
    if best is None:
        return {}
    if len(best.quality) == 1:  # a task's metric
        return {"best_epoch": best.epoch, "metric": best.quality[0], "start_metric": best.start[0]}
    return {
        "best_epoch": best.epoch,
        "val_accuracy": best.quality[-2],
        "val_loss": -best.quality[-1],
        "start_val_accuracy": best.start[-2],
        "start_val_loss": -best.start[-1],
    }


def _words(quality: Quality) -> str:
    if len(quality) == 1:
        return f"{quality[0]:.4g}"
    return f"{quality[-2]:.2%} with a loss of {-quality[-1]:.4f}"


def _objective(run: RunContext, settings: TrainSettings, teacher: nn.Module | None) -> Objective:
    """Return what the training minimises: the cross-entropy, and the distance to a teacher where there is one."""
    objective = Classification(settings.label_smoothing)
    if teacher is None:
        return objective
    flags = run.config.distillation
    return Distillation(
        objective,
        teacher,
        weight=flags.loss_w_dst,
        temperature=flags.tempr_dst,
        scale_gradient=flags.dst_scale_gradient,
    )
