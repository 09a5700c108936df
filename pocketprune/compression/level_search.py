"""The largest level at which a network keeps its accuracy: level after level, trained and scored (NNCF).

The level goes up where the last one kept the accuracy, and down where it did not. The step between levels shrinks when
the direction changes, and where it would lead to a level that is known already.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketprune.common.options import Interval, check_options, option
from pocketprune.compression.controller import Controller

OPEN = Interval(0, 1, low_open=True, high_open=True)


@dataclass(frozen=True, kw_only=True)
class LevelSearch:
    """How the largest level is looked for; the defaults are NNCF's.

    Raises:
        UserError: a value that is not accepted.
    """

    step: float = option(0.1, "difference between the first levels", accept=OPEN)
    shrink: float = option(0.5, "what the step is multiplied by when the direction changes", accept=OPEN)
    least_step: float = option(0.025, "the search ends when the step is smaller", accept=OPEN)
    most: float = option(0.95, "no level above it is tried", accept=OPEN)

    def __post_init__(self) -> None:
        check_options(self)

    def shrinks(self, step: float) -> int:
        """Return how often the first step has shrunk to this one."""
        return round(math.log(step / self.step) / math.log(self.shrink))


@dataclass(frozen=True)
class Trial:
    """One level that was trained at.

    Attributes:
        level: all rules' level.
        step: the step that led to it.
        score: how good the network was then; higher is better.
        met: whether that was good enough.
    """

    level: float
    step: float
    score: float = float("nan")
    met: bool = False


@dataclass
class Progress:
    """What a search knows; it goes on from there.

    Attributes:
        trials: the levels tried, in order.
        state: of the network and the controller with which the next trial begins: those of the largest level that was
            good enough, or the last ones before there is any.
    """

    trials: list[Trial] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Trial | None:
        """The trial of the largest level that was good enough, or None."""
        return max((trial for trial in self.trials if trial.met), key=lambda trial: trial.level, default=None)


def search_level(
    controller: Controller,
    train: Callable[[Trial], float | None],
    required: float,
    settings: LevelSearch | None = None,
    *,
    first: float = 0.5,
    progress: Progress | None = None,
    keep: Callable[[Progress], None] | None = None,
) -> Progress:
    """Look for the largest level whose score is at least what is required.

    Args:
        controller: its network is trained. In the end it is that of the largest level that was good enough, or that of
            the last trial where there is none.
        train: trains the network for a while at the level that is set, and returns its score, higher is better; None
            where there is no time left.
        required: the score that is good enough.
        settings: of the search.
        first: the first level.
        progress: what an earlier search came to; this one goes on.
        keep: is called after each trial, so that a killed search can go on.

    Returns:
        The trials; `best` is the one that counts.
    """
    settings, progress = settings or LevelSearch(), progress or Progress()
    while (ahead := next_trial(progress.trials, settings, first)) is not None:
        if progress.state:
            restore(controller, progress.state)
        controller.set_levels([ahead.level] * len(controller.levels))
        controller.freeze()
        score = train(ahead)
        if score is None:
            break
        trial = Trial(ahead.level, ahead.step, score, met=score >= required)
        progress.trials.append(trial)
        if trial.met or progress.best is None:
            progress.state = snapshot(controller)
        if keep is not None:
            keep(progress)
    if progress.best is not None:
        restore(controller, progress.state)
    return progress


def next_trial(trials: Sequence[Trial], settings: LevelSearch, first: float) -> Trial | None:
    """Return the next level to try, not scored yet; None where the search is over.

    Args:
        trials: those before it. A level above one that was good enough and below one that was not is the only kind
            that is tried.
        settings: of the search.
        first: the level to begin with.
    """
    if not trials:
        return Trial(first, settings.step)
    last, met, missed = trials[-1], [t.level for t in trials if t.met], [t.level for t in trials if not t.met]
    low, high = max(met, default=0.0), min(missed, default=settings.most)
    step = last.step * (settings.shrink if len(trials) > 1 and last.met != trials[-2].met else 1)
    if last.met and not missed:
        level = min(round(last.level + step, 9), settings.most)
        return Trial(level, step) if level > last.level else None
    while step >= settings.least_step:
        level = round(last.level + (step if last.met else -step), 9)
        if low < level < high:
            return Trial(level, step)
        step *= settings.shrink
    return None


def snapshot(controller: Controller) -> dict[str, Any]:
    """Return a copy of the state of a controller and its network."""
    return copy.deepcopy({"net": dict(controller.net.state_dict()), "controller": controller.state_dict()})


def restore(controller: Controller, state: Mapping[str, Any]) -> None:
    """Give a controller and its network a state from `snapshot`."""
    controller.load_state_dict(state["controller"])  # first: whoever watches the network must know its masks
    controller.net.load_state_dict(state["net"])
