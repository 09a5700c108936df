"""Schedules: pure functions of the time that return a level, the share that is masked.

The time t counts epochs or training steps from 0. To add a schedule, write one function of (t, settings) and put one
line into ``SCHEDULES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest

UNITS = ("epoch", "step")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A level as a function of the time.

    Attributes:
        name: a key of ``SCHEDULES``.
        init: the level when the ramp starts, in [0, 1).
        target: the level when the ramp ends, in [0, 1).
        start: the time when the ramp starts; before it the level is 0 (NNCF's warm-up).
        steps: how long the ramp is: the target is reached at start + steps - 1.
        frequency: the level changes every so many units of time.
        unit: what the time counts, "epoch" or "step".
        freeze: the time from which masks do not change any more; None for the schedule's own.
        milestones: (time, level) of a multi-step schedule, in rising order of time.

    Raises:
        UserError: a value out of its range, an unknown name, or an init above the target.
    """

    name: str = "exponential"
    init: float = 0.0
    target: float = 0.5
    start: int = 0
    steps: int = 1
    frequency: int = 1
    unit: str = "epoch"
    freeze: int | None = None
    milestones: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise UserError(f"{self.name!r} given{nearest(str(self.name), SCHEDULES)}", argument="schedule")
        if self.unit not in UNITS:
            raise UserError(f"{self.unit!r} given{nearest(str(self.unit), UNITS)}", argument="unit")
        _check_level("init", self.init)
        _check_level("target", self.target)
        if self.name != "multi_step" and self.init > self.target:
            raise UserError(f"{self.init} given; it must not be above the target, {self.target}", argument="init")
        for name, least in (("start", 0), ("steps", 1), ("frequency", 1)):
            _check_whole(name, getattr(self, name), least)
        if self.freeze is not None:
            _check_whole("freeze", self.freeze, 0)
        self._check_milestones()

    def _check_milestones(self) -> None:
        if bool(self.milestones) != (self.name == "multi_step"):
            words = "multi_step needs at least one" if not self.milestones else f"{self.name} has none"
            raise UserError(f"{len(self.milestones)} given; {words}", argument="milestones")
        for time, level in self.milestones:
            _check_whole("milestones", time, 0)
            _check_level("milestones", level)
        times = [time for time, _ in self.milestones]
        if times != sorted(set(times)):
            raise UserError(f"times {times} given; they must rise", argument="milestones")

    def level(self, t: int) -> float:
        """Return the level at time ``t``."""
        return SCHEDULES[self.name](t, self)

    @property
    def final(self) -> float:
        """The level at the end."""
        return self.milestones[-1][1] if self.milestones else self.target

    @property
    def largest(self) -> float:
        """The largest level that is ever reached."""
        return max((level for _, level in self.milestones), default=self.target)

    def changes(self, t: int) -> bool:
        """Return whether masks are chosen anew at time ``t``."""
        return t >= self.start and (t - self.start) % self.frequency == 0 and (self.freeze is None or t <= self.freeze)

    def is_frozen(self, t: int) -> bool:
        """Return whether the masks chosen at time ``t`` are the last ones."""
        if self.freeze is not None:
            return t >= self.freeze
        if self.name == "multi_step":
            return t >= self.milestones[-1][0]
        return t >= self.start + (0 if self.name in AT_ONCE else self.steps)


def one_shot(t: int, given: Schedule) -> float:
    """Return the target from the start on (NNCF's baseline)."""
    return given.target if t >= given.start else 0.0


def exponential(t: int, given: Schedule) -> float:
    """Let the share that is not masked decay exponentially (NNCF)."""
    if t < given.start:
        return 0.0
    span = given.steps - 1
    if span == 0:
        return given.target
    rest = (1 - given.init) * ((1 - given.target) / (1 - given.init)) ** ((t - given.start) / span)
    return float(min(given.target, 1 - max(rest, 1 - given.target)))


def exponential_with_bias(t: int, given: Schedule) -> float:
    """Rise as a exp(-k i) + b, which is at 3/4 of the target after an eighth of the ramp (NNCF)."""
    if t < given.start:
        return 0.0
    span, rise = given.steps - 1, given.target - given.init
    if 0.75 * given.target - given.init <= rise / 8:  # a straight line is above 3/4 of the target by then
        return linear(t, given)
    if span == 0:
        return given.target
    k = _exponent((0.75 * given.target - given.init) / rise) / span
    a = rise / math.expm1(-k * span)
    return min(given.target, a * math.exp(-k * (t - given.start)) + given.init - a)


def _exponent(share: float) -> float:
    """Return x for which 1 - exp(-x/8) is this share, above 1/8, of 1 - exp(-x)."""

    def gap(x: float) -> float:
        return math.expm1(-x / 8) / math.expm1(-x) - share

    return float(brentq(gap, 1e-9, 700.0, xtol=1e-12))


def agp(t: int, given: Schedule) -> float:
    """Rise by a cubic curve, quickly at first (Zhu and Gupta 2017; rounding of the span as in Distiller)."""
    return 0.0 if t < given.start else given.target + (given.init - given.target) * (1 - _share(t, given)) ** 3


def linear(t: int, given: Schedule) -> float:
    """Rise along a straight line."""
    return 0.0 if t < given.start else given.init + (given.target - given.init) * _share(t, given)


def multi_step(t: int, given: Schedule) -> float:
    """Return the level of the last milestone that has passed; 0 before the first one."""
    return next((level for time, level in reversed(given.milestones) if t >= time), 0.0)


SCHEDULES: dict[str, Callable[[int, Schedule], float]] = {
    "one_shot": one_shot,
    "baseline": one_shot,
    "exponential": exponential,
    "exponential_with_bias": exponential_with_bias,
    "agp": agp,
    "linear": linear,
    "multi_step": multi_step,
}

AT_ONCE = ("one_shot", "baseline")
"""The schedules without a ramp."""


def _share(t: int, given: Schedule) -> float:
    """Return how much of the ramp is over at time ``t``, which is in whole multiples of the frequency."""
    span = (given.steps - 1) // given.frequency * given.frequency
    past = (t - given.start) // given.frequency * given.frequency
    return min(1.0, past / span) if span else 1.0


def _check_level(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UserError(f"{value!r} given; a level in [0, 1) is accepted", argument=name)


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise UserError(f"{value!r} given; a whole number, {least} or more, is accepted", argument=name)
