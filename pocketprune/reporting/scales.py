"""Numbers on their way into a picture: where they lie, which ticks stand beside them, how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]
Format = Callable[[float], str]

WIDEST = 1e300  # beyond it a range overflows


@dataclass(frozen=True)
class Scale:
    """A map from values in [low, high] to places in [start, end], linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; values outside the range lie on its edge."""
        value = min(max(value, self.low), self.high)
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def range_of(values: Iterable[float], margin: float = 0.05) -> tuple[float, float]:
    """Return a range that holds all values with a margin; around a single value it is as wide as that value."""
    known = [value for value in values if abs(value) < WIDEST]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    wide = (high - low) or abs(low) or 1.0
    return low - margin * wide, high + margin * wide


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most `most` round numbers (1, 2 or 5 times a power of ten apart) inside of a range."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 1)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def tick_texts(values: Sequence[float], percent: bool = False) -> list[str]:
    """Return ticks as text, with as many decimals as tell them apart."""
    scaled = [value * 100 for value in values] if percent else list(values)
    step = min((b - a for a, b in pairwise(scaled)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{value:.{decimals}f}{'%' if percent else ''}" if abs(value) < 1e5 else f"{value:.3g}" for value in scaled]


def fewer(points: Sequence[Point], most: int = 160) -> list[Point]:
    """Return a curve of at most `most` points: the means of as many runs of neighbours."""
    if len(points) <= most:
        return list(points)
    edges = [round(number * len(points) / most) for number in range(most + 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]
