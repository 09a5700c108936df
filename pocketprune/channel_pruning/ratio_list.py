"""The ratio list: a text file with one preserve ratio for each prunable layer, in forward order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically

_RANGE = "expected a number in (0, 1]"


def parse_ratio_list(path: str | Path, expected_names: Sequence[str]) -> list[float]:
    """Read the preserve ratios of a list file.

    Entries are separated by commas or line ends. ``#`` starts a comment. A trailing comma is allowed.

    Args:
        path: the file.
        expected_names: the prunable layers in forward order.

    Returns:
        One ratio for each name.

    Raises:
        UserError: the file is missing, unreadable or empty; an entry is no number, not finite or outside (0, 1]; or
            the number of entries is wrong (a missing tail is not filled in).
    """
    entries = _entries(_read(path))
    if not entries:
        raise UserError(f"ratio list {path}: is empty, expected {_expectation(expected_names)}")
    ratios = [_parse_entry(path, number, entry) for number, entry in enumerate(entries, 1)]
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    return ratios


def check_ratios(ratios: Sequence[float], expected_names: Sequence[str], *, source: str) -> None:
    """Raise UserError unless ``ratios`` holds one number in (0, 1] per name. The message begins with ``source``."""
    for number, ratio in enumerate(ratios, 1):
        if not (isinstance(ratio, Real) and math.isfinite(ratio) and 0 < ratio <= 1):
            raise UserError(f"{source}: entry {number} is {ratio}, {_RANGE}")
    if len(ratios) != len(expected_names):
        entries = "1 entry" if len(ratios) == 1 else f"{len(ratios)} entries"
        raise UserError(f"{source}: has {entries}, expected {_expectation(expected_names)}")


def write_ratio_list(path: str | Path, expected_names: Sequence[str], ratios: Sequence[float]) -> None:
    """Write a file that ``parse_ratio_list`` reads back exactly: on each line a ratio and the name of its layer.

    Args:
        path: the file; it is written entirely or not at all.
        expected_names: the prunable layers in forward order.
        ratios: one for each name.

    Raises:
        UserError: the list could not hold the ratios, or the file cannot be written.
    """
    check_ratios(ratios, expected_names, source=f"ratio list {path}")
    lines = [
        f"{float(ratio)!r},  # {number}: {name}\n"
        for number, (ratio, name) in enumerate(zip(ratios, expected_names, strict=True), 1)
    ]
    write_atomically(path, "".join(lines).encode())


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
    """Return the expected number of entries and their layers. More than ``shown`` names are shortened in the middle."""
    some = names if len(names) <= shown else [*names[: shown - 2], "...", names[-1]]
    return f"{len(names)}, one per prunable layer ({', '.join(some)})"
