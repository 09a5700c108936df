"""Options: dataclass fields that carry their default, their teaching text and what they accept.

Each option of the engine stands once, as such a field. The command line takes its flags from there.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import suggestion

LARGEST = 10**12  # beyond any quantity here; numbers far beyond it overflow in libraries


@dataclass(frozen=True)
class Interval:
    """The numbers that an option accepts; infinities and NaN never are, nor what is beyond LARGEST."""

    low: float
    high: float = LARGEST
    low_open: bool = False
    high_open: bool = False
    whole: bool = False
    beside: float | None = None
    """One number more that is accepted."""

    def __contains__(self, value: Any) -> bool:
        is_number = isinstance(value, numbers.Integral if self.whole else numbers.Real)
        return is_number and not isinstance(value, bool) and (value == self.beside or self._spans(value))

    def _spans(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        if self.high == LARGEST:
            return f"{'>' if self.low_open else '>='} {self.low}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{self.low}, {self.high}{right}"

    @property
    def words(self) -> str:
        """The interval in words, such as "a whole number >= 1"."""
        more = "" if self.beside is None else f", or {self.beside}"
        return f"a {'whole ' if self.whole else ''}number {self}{more}"


SHARE = Interval(0, 1, low_open=True)
SHARE_OR_ZERO = Interval(0, 1)
FRACTION = Interval(0, 1, high_open=True)
COUNT = Interval(1, whole=True)
COUNT_OR_ZERO = Interval(0, whole=True)
POSITIVE = Interval(0, low_open=True)
NOT_NEGATIVE = Interval(0)

Accepted = Interval | tuple[str, ...] | None
"""Numbers, words, or None: anything of the option's type."""


def option(default: Any, teach: str, *, accept: Accepted = None) -> Any:
    """Return a dataclass field for an option.

    Args:
        default: None stands for a value that something else brings along.
        teach: what the option means, for a person who reads the help page.
        accept: the numbers or words accepted.
    """
    return dataclasses.field(default=default, metadata={"teach": teach, "accept": accept})


def expectation(value: Any, accept: Accepted) -> str:
    """Return what is expected in the place of `value`, such as "expected a number >= 1"; "" where it is accepted."""
    if accept is None or value in accept:
        return ""
    if isinstance(accept, Interval):
        too_large = accept.high == LARGEST and isinstance(value, int | float) and value > LARGEST
        return f"expected {accept.words}{f' and at most {LARGEST:,}' if too_large else ''}"
    return f"expected one of {', '.join(accept)}{suggestion(str(value), accept)}"


def expectation_of(field: dataclasses.Field[Any], value: Any) -> str:
    """Return the `expectation` of a field made by `option`; it always accepts its own default, None."""
    return "" if value is None and field.default is None else expectation(value, field.metadata.get("accept"))


def check_option(name: str, value: Any, accept: Accepted) -> None:
    """Raise a UserError that names the argument `name` unless its value is accepted."""
    if expected := expectation(value, accept):
        raise UserError(f"{value!r} given; {expected}", argument=name)


def check_options(options: Any, prefix: str = "") -> None:
    """Raise a UserError that names the first field of a dataclass whose value is not accepted.

    Args:
        options: an object of a dataclass; only fields made by `option` are checked.
        prefix: written before the field's name, such as "budget." where the whole object is the argument `budget`.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if expected := expectation_of(field, value):
            raise UserError(f"{value!r} given; {expected}", argument=prefix + field.name)
