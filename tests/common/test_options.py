"""Options: intervals, and the one line about a value that is not accepted."""

from dataclasses import dataclass

import pytest

from pocketprune.common.errors import UserError
from pocketprune.common.options import COUNT, FRACTION, POSITIVE, SHARE, Interval, check_options, option


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "text"),
    [
        (SHARE, [0.001, 1], [0, 1.001, -1, float("nan")], "in (0, 1]"),
        (FRACTION, [0, 0.999], [1, -0.1], "in [0, 1)"),
        (Interval(0, low_open=True), [1e-9, 1e9], [0, float("inf")], "> 0"),
        (Interval(1), [1, 10**9], [0, 10**20, 1e300, float("inf")], ">= 1"),
        (COUNT, [1, 10**9], [0, 1.5, float("inf"), "1", True], ">= 1"),
    ],
)
def test_intervals(interval: Interval, inside: list[float], outside: list[float], text: str) -> None:
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
    assert str(interval) == text


@dataclass
class Options:
    steps: int = option(3, "steps in all", accept=COUNT)
    rate: float | None = option(None, "how fast; None: by itself", accept=POSITIVE)
    mode: str = option("quick", "quick or thorough", accept=("quick", "thorough"))
    name: str = option("", "anything goes")
    other: object = None


@pytest.mark.parametrize("options", [Options(), Options(1, 0.5, "thorough", "x", object())])
def test_accepted_values_pass(options: Options) -> None:
    check_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(steps=0), "steps: 0 given; expected a whole number >= 1"),
        (Options(steps=1.5), "steps: 1.5 given; expected a whole number >= 1"),
        (Options(steps=None), "steps: None given; expected a whole number >= 1"),
        (Options(rate=float("nan")), "rate: nan given; expected a number > 0"),
        (Options(rate="fast"), "rate: 'fast' given; expected a number > 0"),
        (Options(mode="quik"), "mode: 'quik' given; expected one of quick, thorough; did you mean 'quick'?"),
    ],
)
def test_another_value_is_told_with_what_is_accepted(options: Options, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_options(options)
    assert str(caught.value) == message
    with pytest.raises(UserError) as caught:
        check_options(options, "plan.")
    assert caught.value.argument == f"plan.{message.split(':')[0]}"
