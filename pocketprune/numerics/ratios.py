"""Preserve ratios: how many channels a ratio keeps, and the list file that holds one ratio per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

from pocketprune.common.errors import UserError

_RANGE = "expected a number in (0, 1]"


def kept_count(ratio: float, channels: int, multiple: int = 1) -> int:
    """Channels kept of ``channels`` at a preserve ratio: max(1, round(ratio * channels)).

    With multiple > 1 the nearest positive multiple. Never more channels than there are; all of them at
    ratio 1.
    Raises ValueError for a ratio outside (0, 1], or for channels or a multiple below 1.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"preserve ratio must lie in (0, 1], got {ratio}")
    if channels < 1 or multiple < 1:
        raise ValueError(f"channels and multiple must be at least 1, got {channels} and {multiple}")
    if ratio == 1:
        return channels
    return min(channels, multiple * max(1, round(ratio * channels / multiple)))


def unit_count(count: int, channels: int, units: int) -> int:
    """Return how many of `units` equal units stay when `count` of `channels` channels stay; at least one."""
    return max(1, round(count * units / channels))


def unit_count_of_share(share: float, units: int) -> int:
    """Return how many of `units` stay when a share of them stays; at least one."""
    return max(1, round(share * units))


def parse_ratio_list(path: str | Path, expected_names: Sequence[str]) -> list[float]:
    """The preserve ratios of a list file, one per name in ``expected_names`` (layers in forward order).

    Entries are separated by commas or line ends; ``#`` starts a comment; a trailing comma is allowed.
    Raises UserError, in one line, for a file that is missing, unreadable or empty, for an entry that is no
    number, not finite or outside (0, 1], and for a wrong number of entries (a missing tail is not filled in).
    """
    entries = _entries(_read(path))
    if not entries:
        raise UserError(f"ratio list {path}: is empty, expected {_expectation(expected_names)}")
    ratios = [_parse_entry(path, number, entry) for number, entry in enumerate(entries, 1)]
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    return ratios


def check_ratios(ratios: Sequence[float], expected_names: Sequence[str], *, source: str) -> None:
    """Raise UserError unless ``ratios`` holds one number in (0, 1] per name; ``source`` opens the message."""
    for number, ratio in enumerate(ratios, 1):
        if not (isinstance(ratio, Real) and math.isfinite(ratio) and 0 < ratio <= 1):
            raise UserError(f"{source}: entry {number} is {ratio}, {_RANGE}")
    if len(ratios) != len(expected_names):
        entries = "1 entry" if len(ratios) == 1 else f"{len(ratios)} entries"
        raise UserError(f"{source}: has {entries}, expected {_expectation(expected_names)}")


def write_ratio_list(path: str | Path, expected_names: Sequence[str], ratios: Sequence[float]) -> None:
    """Write, in one step, a file that ``parse_ratio_list`` reads back exactly: a ratio and its layer a line.

    Raises UserError for ratios that the list could not hold, or a path that cannot be written.
    """
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    lines = [
        f"{float(ratio)!r},  # {number}: {name}\n"
        for number, (ratio, name) in enumerate(zip(ratios, expected_names, strict=True), 1)
    ]
    part = Path(f"{path}.part")
    try:
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(f"ratio list {path}: cannot be written ({error.strerror})") from None


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"ratio list {path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"ratio list {path}: cannot be read (not a text file)") from None
    except OSError as error:
        raise UserError(f"ratio list {path}: cannot be read ({error.strerror})") from None


def _entries(text: str) -> list[str]:
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [entry.strip() for line in lines if line for entry in line.removesuffix(",").split(",")]


def _parse_entry(path: str | Path, number: int, entry: str) -> float:
    try:
        return float(entry)
    except ValueError:
        shown = repr(entry) if entry else "empty"
        raise UserError(f"ratio list {path}: entry {number} is {shown}, {_RANGE}") from None


def _expectation(names: Sequence[str], shown: int = 6) -> str:
    """How many entries are expected and for which layers, the names shortened in the middle when many."""
    some = names if len(names) <= shown else [*names[: shown - 2], "...", names[-1]]
    return f"{len(names)}, one per prunable layer ({', '.join(some)})"
