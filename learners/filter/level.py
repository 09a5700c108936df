"""The largest level at which the accuracy stays within a given drop (--fp_max_accuracy_drop)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from learners.context import RunContext
from learners.fitting import fit
from pocketprune import Controller, Policy
from pocketprune.common.errors import UserError
from pocketprune.compression.callback import callback
from pocketprune.compression.level_search import LevelSearch, Progress, Trial, search_level, snapshot
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import evaluate
from pocketprune.training.state import TrainSettings

SEARCHED, TRIED = "filter_level", "filter_trial"  # the phases of the search and of each of its trainings


def check(run: RunContext, policy: Policy, settings: TrainSettings | None) -> None:
    """Check that the level can be searched for where that is asked for.

    Raises:
        UserError: there is no training with masks, or more than one level.
    """
    drop = run.config.filter_pruning.fp_max_accuracy_drop
    if drop is None:
        return
    if settings is None:
        raise UserError(f"{drop:g} given without a training with masks", argument="max_accuracy_drop")
    if len(policy.rules) > 1:
        raise UserError(
            f"{drop:g} given with a policy of {len(policy.rules)} rules; one is accepted", argument="max_accuracy_drop"
        )


def largest_level(
    run: RunContext, controller: Controller, settings: TrainSettings, dense: nn.Module, teacher: nn.Module | None
) -> list[Trial]:
    """Go on from a network trained at one level: train at others, and end with the largest that keeps the accuracy.

    Accuracies are those on the validation images. Where no level keeps it, the network becomes the dense one again.

    Args:
        run: says the drop.
        controller: of the network, which was trained at the end of its schedule.
        settings: of the training at each level.
        dense: the network that the drop counts from.
        teacher: as in `fit`.

    Returns:
        The levels tried, in order.
    """
    required = _accuracy(run, dense) - (run.config.filter_pruning.fp_max_accuracy_drop or 0.0)
    search = LevelSearch(most=min(LevelSearch.most, controller.planner.reachable()))
    checkpoints, progress = run.checkpoints(SEARCHED), _begun(run, controller, search, required)

    def train(trial: Trial) -> float:
        phase = f"{TRIED}{len(progress.trials)}"
        fit(run, controller.net, phase, settings, "finetune", teacher=teacher, callbacks=[callback(controller)])
        return _accuracy(run, controller.net)

    def keep(found: Progress) -> None:
        run.say(_line(found.trials[-1], required))
        if is_main():
            plain = [list(asdict(trial).values()) for trial in found.trials]
            checkpoints.save({"trials": plain, "state": found.state}, len(found.trials))

    found = search_level(controller, train, required, search, progress=progress, keep=keep)
    if found.best is None:
        run.say("No level keeps the accuracy: nothing is removed")
        controller.set_levels([0.0])
        controller.net.load_state_dict(dense.state_dict())
    return found.trials


def _begun(run: RunContext, controller: Controller, search: LevelSearch, required: float) -> Progress:
    """Return what is known when the search begins, or when it goes on."""
    found = run.checkpoints(SEARCHED).latest()
    if found is not None:
        with found.understood():
            return Progress([Trial(*values) for values in found.state["trials"]], found.state["state"])
    score = _accuracy(run, controller.net)
    first = Trial(controller.policy.rules[0].schedule.final, search.step, score, met=score >= required)
    run.say(_line(first, required))
    return Progress([first], snapshot(controller))


def _accuracy(run: RunContext, net: nn.Module) -> float:
    return float(evaluate(net, run.dataset.val, run.config.data.batch_size_eval, device=run.device).accuracy)


def _line(trial: Trial, required: float) -> str:
    verdict = "enough" if trial.met else "too little"
    return f"Level {trial.level:.3f}: {trial.score:.2%} of the validation images, {verdict} ({required:.2%} needed)"


def told(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what report.json says of the levels tried."""
    rows = [{"level": t.level, "val_accuracy": t.score, "kept": t.met} for t in trials]
    return {"levels": rows} if rows else {}
