"""Preserve ratios and kept counts: every rounding of one to the other."""

from __future__ import annotations


def kept_count(ratio: float, channels: int, multiple: int = 1) -> int:
    """Return how many of ``channels`` a preserve ratio keeps: max(1, round(ratio * channels)).

    Args:
        ratio: preserve ratio, in (0, 1].
        channels: number of channels, at least 1.
        multiple: the count is the nearest positive multiple of this number, at least 1.

    Returns:
        The count; never more than there are channels, and all of them at ratio 1.

    Raises:
        ValueError: an argument is outside its range.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"preserve ratio must lie in (0, 1], got {ratio}")
    if channels < 1 or multiple < 1:
        raise ValueError(f"channels and multiple must be at least 1, got {channels} and {multiple}")
    if ratio == 1:
        return channels
    return min(channels, multiple * max(1, round(ratio * channels / multiple)))


def unit_count(count: int, channels: int, units: int) -> int:
    """Return how many of ``units`` equal units stay when ``count`` of ``channels`` stay.

    Args:
        count: kept channels, 1 ... channels.
        channels: number of channels.
        units: number of units, at least 1. A unit stands for the same number of channels everywhere.

    Returns:
        max(1, round(count * units / channels)).

    Raises:
        ValueError: an argument is outside its range.
    """
    if not 1 <= count <= channels:
        raise ValueError(f"count must lie in 1 ... {channels}, got {count}")
    if units < 1:
        raise ValueError(f"units must be at least 1, got {units}")
    return max(1, round(count * units / channels))
