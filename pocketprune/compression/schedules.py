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
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, check_option, check_options, option

UNITS = ("epoch", "step")


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


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A level as a function of the time.

    Raises:
        UserError: a value out of its range, an unknown name, or an init above the target.
    """

    name: str = option("exponential", f"how the level rises: {', '.join(SCHEDULES)}", accept=tuple(SCHEDULES))
    init: float = option(0.0, "level when the schedule starts", accept=FRACTION)
    target: float = option(0.5, "level when the schedule ends", accept=FRACTION)
    start: int = option(0, "time when the schedule starts; before it the level is 0", accept=COUNT_OR_ZERO)
    steps: int = option(1, "how long the level rises; the target is reached at start + steps - 1", accept=COUNT)
    frequency: int = option(1, "the level changes every so many units of time", accept=COUNT)
    unit: str = option("epoch", "what the time counts: epoch or step (of the training)", accept=UNITS)
    freeze: int | None = option(
        None, "time from which masks do not change any more; its own: the one after the rise", accept=COUNT_OR_ZERO
    )
    milestones: tuple[tuple[int, float], ...] = option((), "(time, level) of multi_step, the times rising")

    def __post_init__(self) -> None:
        check_option("schedule", self.name, tuple(SCHEDULES))
        check_options(self)
        if self.name != "multi_step" and self.init > self.target:
            raise UserError(f"{self.init} given; it must not be above the target, {self.target}", argument="init")
        self._check_milestones()

    def _check_milestones(self) -> None:
        given = self.milestones
        if not isinstance(given, (tuple, list)) or any(not isinstance(m, (tuple, list)) or len(m) != 2 for m in given):
            raise UserError(f"{given!r} given; a list of (time, level) is accepted", argument="milestones")
        if bool(self.milestones) != (self.name == "multi_step"):
            words = "multi_step needs at least one" if not self.milestones else f"{self.name} has none"
            raise UserError(f"{len(self.milestones)} given; {words}", argument="milestones")
        for time, level in self.milestones:
            check_option("milestones", time, COUNT_OR_ZERO)
            check_option("milestones", level, FRACTION)
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
