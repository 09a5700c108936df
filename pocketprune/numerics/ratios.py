"""Preserve ratios: how many channels a ratio keeps, and the list file that holds one ratio per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pocketprune.errors import UserError


def kept_count(ratio: float, channels: int, multiple: int = 1) -> int:
    """Channels kept of ``channels`` at a preserve ratio: max(1, round(ratio * channels)).

    With multiple > 1 the nearest positive multiple; never more than there are channels, and all of them at ratio 1.
    Raises ValueError for a ratio outside (0, 1] or counts below 1.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"preserve ratio must lie in (0, 1], got {ratio}")
    if channels < 1 or multiple < 1:
        raise ValueError(f"channels and multiple must be at least 1, got {channels} and {multiple}")
    if ratio == 1:
        return channels
    return min(channels, multiple * max(1, round(ratio * channels / multiple)))


def parse_ratio_list(path: str | Path, expected_names: Sequence[str]) -> list[float]:
    """The preserve ratios of a list file, one per name in ``expected_names`` (layers in forward order).

    Entries are separated by commas or line ends; ``#`` starts a comment; a trailing comma is allowed.
    Raises UserError, in one line, for a file that is missing, unreadable or empty, for an entry that is no number, not
    finite or outside (0, 1], and for a wrong number of entries (a missing tail is not filled in).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"ratio list {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"ratio list {path}: cannot be read ({reason})") from None
    lines = (line.split("#", 1)[0].strip().rstrip(",") for line in text.splitlines())
    entries = [entry.strip() for line in lines if line for entry in line.split(",")]
    if not entries:
        raise UserError(f"ratio list {path}: empty, expected {_expectation(expected_names)}")
    ratios = [_parse_entry(path, number, entry) for number, entry in enumerate(entries, 1)]
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    return ratios


def check_ratios(ratios: Sequence[float], expected_names: Sequence[str], *, source: str) -> None:
    """Raise UserError unless ``ratios`` holds one number in (0, 1] per name; ``source`` opens the message."""
    for number, ratio in enumerate(ratios, 1):
        if not (isinstance(ratio, (int, float)) and math.isfinite(ratio) and 0 < ratio <= 1):
            raise UserError(f"{source}: entry {number} is {ratio}, expected a number in (0, 1]")
    if len(ratios) != len(expected_names):
        entries = "1 entry" if len(ratios) == 1 else f"{len(ratios)} entries"
        raise UserError(f"{source}: has {entries}, expected {_expectation(expected_names)}")


def write_ratio_list(path: str | Path, expected_names: Sequence[str], ratios: Sequence[float]) -> None:
    """Write a list file that ``parse_ratio_list`` reads back exactly: one ratio per line, its layer as a comment."""
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    lines = [f"{float(ratio)!r},  # {index}: {name}"
             for index, (ratio, name) in enumerate(zip(ratios, expected_names, strict=True))]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parse_entry(path: str | Path, number: int, entry: str) -> float:
    try:
        return float(entry)
    except ValueError:
        raise UserError(f"ratio list {path}: entry {number} is {entry!r}, expected a number in (0, 1]") from None


def _expectation(names: Sequence[str], shown: int = 6) -> str:
    """How many entries are expected and for which layers, shortened in the middle when there are many."""
    if len(names) > shown:
        names_text = f"{', '.join(names[:shown - 2])}, ..., {names[-1]}"
    else:
        names_text = ", ".join(names)
    return f"{len(names)}: one per prunable layer ({names_text})"
