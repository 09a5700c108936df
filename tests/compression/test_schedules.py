"""Schedules against the values of NNCF, Distiller and NNI."""

from __future__ import annotations

import pytest

from pocketprune.common.errors import UserError
from pocketprune.compression.schedules import SCHEDULES, Schedule


def levels(times: range | list[int], **settings: object) -> list[float]:
    schedule = Schedule(**settings)
    return [schedule.level(t) for t in times]


def test_exponential_with_bias_is_nncfs() -> None:
    found = levels(range(10), name="exponential_with_bias", init=0.1, target=0.7, start=3, steps=5)
    expected = [0, 0, 0, 0.1, 0.6489741, 0.6956869, 0.6996617, 0.7, 0.7, 0.7]
    assert found == pytest.approx(expected, abs=1e-6)


def test_exponential_is_nncfs() -> None:
    found = levels(range(16), name="exponential", init=0.1, target=0.4, steps=15)
    assert found[:4] == pytest.approx([0.1, 0.125692, 0.150650, 0.174896], abs=1e-6)
    assert found[14:] == [pytest.approx(0.4, abs=1e-12)] * 2
    found = levels(range(8), name="exponential", init=0.1, target=0.7, start=3, steps=5)
    assert found == pytest.approx([0, 0, 0, 0.1, 0.316148, 0.480385, 0.605178, 0.7], abs=1e-6)
    found = levels([0, 2, 4, 5, 7, 8, 10, 20], name="exponential", init=0.2, target=0.8, steps=11)
    assert found == pytest.approx([0.2, 0.39, 0.54, 0.60, 0.69, 0.73, 0.8, 0.8], rel=0.011)


def test_multi_step_is_nncfs() -> None:
    steps = ((0, 0.2), (4, 0.5), (6, 0.3), (10, 0.8))
    found = levels([0, 2, 4, 5, 7, 8, 10, 20], name="multi_step", milestones=steps)
    assert found == [0.2, 0.2, 0.5, 0.5, 0.3, 0.3, 0.8, 0.8]
    assert levels([0, 1], name="multi_step", milestones=((1, 0.5),)) == [0, 0.5]


def test_agp_is_distillers_and_nnis() -> None:
    found = levels(range(0, 30, 2), name="agp", init=0.1, target=0.5, steps=30, frequency=2)
    assert found[:4] == pytest.approx([0.1, 0.1797, 0.2481, 0.3060], abs=5e-5)
    assert found[7] == pytest.approx(0.45, abs=1e-6)
    assert found[14] == pytest.approx(0.5, abs=1e-12)
    assert levels([3, 29], name="agp", init=0.1, target=0.5, steps=30, frequency=2) == [found[1], found[14]]
    expected = [0, 0.3904, 0.6272, 0.7488, 0.7936, 0.8]
    assert levels(range(6), name="agp", target=0.8, steps=6) == pytest.approx(expected, abs=1e-6)


def test_linear_is_nnis() -> None:
    expected = [0, 0, 0.16, 0.32, 0.48, 0.64, 0.8, 0.8]
    assert levels(range(8), name="linear", target=0.8, start=1, steps=6) == pytest.approx(expected, abs=1e-12)


def test_when_masks_change_and_freeze() -> None:
    baseline = Schedule(name="baseline", target=0.5, start=1)
    assert [(baseline.level(t), baseline.is_frozen(t)) for t in (0, 1)] == [(0, False), (0.5, True)]
    biased = Schedule(name="exponential_with_bias", init=0.1, target=0.7, start=3, steps=5)
    assert [t for t in range(12) if not biased.is_frozen(t)] == list(range(8))
    every_third = Schedule(name="agp", start=1, steps=9, frequency=3, freeze=6)
    assert [t for t in range(12) if every_third.changes(t)] == [1, 4]
    assert every_third.is_frozen(6)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "multi_step"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("init", [0.0, 0.3, 0.59, 0.6])
def test_every_ramp_rises_to_the_target(name: str, steps: int, init: float) -> None:
    found = levels(range(12), name=name, init=init, target=0.6, start=2, steps=steps)
    assert found[:2] == [0, 0]
    assert found == sorted(found)
    assert found[1 + steps :] == pytest.approx([0.6] * (11 - steps), abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.0}, "target: 1.0 given; expected a number in [0, 1)"),
        ({"init": -0.1}, "init: -0.1 given; expected a number in [0, 1)"),
        ({"init": 0.6}, "init: 0.6 given; it must not be above the target, 0.5"),
        ({"steps": 0}, "steps: 0 given; expected a whole number >= 1"),
        ({"name": "cubik"}, "schedule: 'cubik' given; expected one of one_shot, "),
        ({"name": ["agp"]}, "schedule: ['agp'] given; expected one of one_shot, "),
        ({"name": "expnential"}, "schedule: 'expnential' given; expected one of one_shot, "),
        ({"unit": "day"}, "unit: 'day' given; expected one of epoch, step"),
        ({"name": "multi_step"}, "milestones: 0 given; multi_step needs at least one"),
        ({"milestones": ((1, 0.5),)}, "milestones: 1 given; exponential has none"),
        ({"name": "multi_step", "milestones": ((2, 0.5), (1, 0.5))}, "milestones: times [2, 1] given; they must rise"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Schedule(**settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
