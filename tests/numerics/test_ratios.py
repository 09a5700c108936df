from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketprune.numerics.ratios import kept_count, unit_count


@pytest.mark.parametrize(
    ("ratio", "channels", "multiple", "kept"),
    [
        (0.5, 16, 1, 8),
        (0.1875, 16, 1, 3),
        (0.01, 16, 1, 1),
        (1.0, 3, 1, 3),
        (0.546875, 64, 1, 35),
        (0.3, 32, 4, 8),
        (0.01, 32, 4, 4),
        (1.0, 30, 4, 30),
        (0.5, 3, 4, 3),
        (0.99, 30, 8, 30),
        (0.6, 30, 8, 16),
    ],
)
def test_kept_count(ratio: float, channels: int, multiple: int, kept: int) -> None:
    assert kept_count(ratio, channels, multiple) == kept


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 600), st.integers(1, 16))
def test_kept_count_is_possible_and_near(ratio: float, channels: int, multiple: int) -> None:
    kept = kept_count(ratio, channels, multiple)
    assert 1 <= kept <= channels
    assert kept % multiple == 0 or kept == channels
    assert abs(kept - ratio * channels) <= max(1, multiple)


@pytest.mark.parametrize(
    ("ratio", "channels", "multiple"), [(0, 4, 1), (1.1, 4, 1), (float("nan"), 4, 1), (0.5, 0, 1), (0.5, 4, 0)]
)
def test_kept_count_refuses(ratio: float, channels: int, multiple: int) -> None:
    with pytest.raises(ValueError, match=r"must (lie in \(0, 1\]|be at least 1)"):
        kept_count(ratio, channels, multiple)


@pytest.mark.parametrize(
    ("count", "channels", "units", "kept"),
    [
        (8, 16, 16, 8),
        (8, 16, 4, 2),
        (3, 16, 4, 1),
        (1, 64, 4, 1),
        (5, 10, 5, 2),  # 2.5: ties go to the even count
        (7, 10, 5, 4),  # 3.5
        (10, 10, 5, 5),
        (3, 4, 8, 6),
    ],
)
def test_unit_count(count: int, channels: int, units: int, kept: int) -> None:
    assert unit_count(count, channels, units) == kept


@given(st.integers(1, 600), st.integers(1, 600), st.data())
def test_unit_count_is_possible_and_near(channels: int, units: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, channels))
    kept = unit_count(count, channels, units)
    assert 1 <= kept <= units
    assert kept == max(1, round(count * units / channels))
    assert abs(kept * channels - count * units) <= max(channels / 2, channels - units)
    assert unit_count(count, channels, channels) == count


@pytest.mark.parametrize(("count", "channels", "units"), [(0, 4, 4), (5, 4, 4), (1, 0, 4), (1, 4, 0)])
def test_unit_count_refuses(count: int, channels: int, units: int) -> None:
    with pytest.raises(ValueError, match=r"(count must lie in 1 \.\.\.|units must be at least 1)"):
        unit_count(count, channels, units)


@given(st.integers(1, 600), st.data())
def test_one_channel_a_unit_rounds_as_ratios_do(channels: int, data: st.DataObject) -> None:
    """A group's share of channels and a layer's count of units are the same number."""
    count = data.draw(st.integers(1, channels))
    assert kept_count(count / channels, channels) == unit_count(count, channels, channels)
