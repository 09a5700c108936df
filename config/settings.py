"""Dataclass fields that teach and check: what a setting means, what it accepts, the line when it does not.

Used by config.py, whose fields become the command line's flags.
"""

import dataclasses
import difflib
import math
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass

from pocketprune.common.errors import UserError


@dataclass(frozen=True)
class Interval:
    """The numbers a setting accepts; infinities and NaN never are."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'>' if self.low_open else '>='} {self.low}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{self.low}, {self.high}{right}"


SHARE = Interval(0, 1, low_open=True)
FRACTION = Interval(0, 1, high_open=True)
COUNT = Interval(1)
COUNT_OR_ZERO = Interval(0)
POSITIVE = Interval(0, low_open=True)
NOT_NEGATIVE = Interval(0)


def setting(default: object, teach: str, *, accept: Interval | tuple[str, ...] | None = None) -> typing.Any:
    """A dataclass field that is also a flag. `accept` is an interval of numbers or a tuple of words.

    A default of None stands for a value that the network or the data set brings along ("its own").
    """
    return dataclasses.field(default=default, metadata={"teach": teach, "accept": accept})


class Concern:
    """Base of the settings of one concern: checks every value, wherever the settings come from."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(field, getattr(self, field.name))


def kinds(concern: type[Concern]) -> dict[str, type]:
    """Field name -> bool, int, float or str; an optional number (int | None) counts as its number."""
    return {name: _kind(hint) for name, hint in typing.get_type_hints(concern).items()}


def nearest(word: str, known: Sequence[str]) -> str:
    """'; did you mean X?' for the most similar known word, else nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def described(concern: type[Concern], width: int) -> str:
    """A concern's part of the help page: every flag with its default, its limits and its teaching text."""
    lines = [f"{concern.__doc__}:"]
    for field in dataclasses.fields(concern):  # type: ignore[arg-type]
        accept = field.metadata["accept"]
        limits = f"  {accept}" if isinstance(accept, Interval) else ""
        lines.append(f"  --{field.name} ({_shown(field.default)}){limits}")
        teach = textwrap.wrap(field.metadata["teach"], width - 6, break_on_hyphens=False)
        lines += [" " * 6 + line for line in teach]
    return "\n".join(lines)


def _shown(default: object) -> str:
    if default is None:
        return "its own"
    if default == "":
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _kind(hint: typing.Any) -> type:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _check(field: dataclasses.Field, value: typing.Any) -> None:
    accept = field.metadata["accept"]
    if value is None or accept is None or value in accept:
        return
    if isinstance(accept, Interval):
        raise UserError(f"--{field.name}={value}: expected a number {accept}")
    hint = nearest(str(value), accept)
    raise UserError(f"--{field.name}={value}: expected one of {', '.join(accept)}{hint}")
