"""Ticks, ranges and thinned curves."""

from hypothesis import given
from hypothesis import strategies as st

from pocketprune.reporting.scales import Scale, fewer, range_of, tick_texts, ticks

NUMBERS = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_ticks_are_few_inside_of_the_range_and_tell_themselves_apart(values: list[float]) -> None:
    low, high = range_of(values)
    assert low < min(values) or high > max(values)
    found = ticks(low, high)
    slack = 1e-6 * (high - low)
    assert len(found) <= 6
    assert all(low - slack <= tick <= high + slack for tick in found)
    if max(map(abs, found), default=0) < 1e4 and high - low > 1e-3:
        assert len(set(tick_texts(found))) == len(found)


def test_tick_texts_have_the_decimals_they_need() -> None:
    assert tick_texts([0.1, 0.15, 0.2]) == ["0.10", "0.15", "0.20"]
    assert tick_texts([0.5, 0.505], percent=True) == ["50.0%", "50.5%"]
    assert tick_texts([1e6, 2e6]) == ["1e+06", "2e+06"]


def test_a_scale_maps_its_ends_and_clips() -> None:
    linear, logarithmic = Scale(0, 10, 100, 200), Scale(0.01, 1, 0, 2, log=True)
    assert (linear(0), linear(5), linear(10), linear(11)) == (100, 150, 200, 200)
    assert logarithmic(0.1) == 1
    assert logarithmic(0.001) == 0


def test_a_long_curve_keeps_its_means_and_its_end() -> None:
    curve = [(float(x), float(x % 7)) for x in range(1000)]
    short = fewer(curve, most=10)
    assert len(short) == 10
    assert short[-1][0] == 999
    assert abs(sum(y for _, y in short) / 10 - sum(y for _, y in curve) / 1000) < 1e-9
