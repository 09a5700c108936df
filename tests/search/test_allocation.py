"""Curves, the knapsack and exchanges against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprune.search import Budget
from pocketprune.search.allocation import allocate, knapsack
from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curve, monotone, probe_values
from pocketprune.search.exchange import polish, total
from pocketprune.search.sensitivity import threshold_values
from pocketprune.search.uniform import uniform_values
from tests.search.toys import Chain, all_values, deep, three_layers, variable

CURVE = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6)


@given(st.lists(st.tuples(CURVE, st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_the_knapsack_is_exact(items: list, capacity: int) -> None:
    losses = [np.array(value) for value, _ in items]
    weights = [np.arange(len(value)) * float(step) for value, step in items]

    def worth(chosen: tuple[int, ...]) -> float:
        return sum(value[pick] for value, pick in zip(losses, chosen, strict=True))

    def weight(chosen: tuple[int, ...]) -> float:
        return sum(one[pick] for one, pick in zip(weights, chosen, strict=True))

    chosen = tuple(knapsack(losses, weights, float(capacity)))
    assert weight(chosen) <= capacity * 1.01
    options = itertools.product(*(range(len(value)) for value in losses))
    best = min(worth(option) for option in options if weight(option) <= 0.998 * capacity)
    assert worth(chosen) <= best + 1e-9


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_allocation_under_the_bilinear_cost_is_nearly_the_best_sum(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    env = Chain(
        [variable(f"layer{i}", range(1, 11)) for i in range(4)], prices=rng.uniform(0.5, 2, 4), weights=[1.0] * 4
    )
    problem = Problem(env, Budget(share=share))
    curves = [np.sort(rng.uniform(0, rng.uniform(0.2, 2), 10))[::-1] for _ in range(4)]
    sums = {values: total(problem, curves, values) for values in all_values(problem) if problem.fits(values)}
    reached = allocate(problem, curves)
    assert problem.meets(reached)
    assert total(problem, curves, reached) <= min(sums.values()) * 1.05 + 1e-9


def test_polish_only_improves_and_keeps_the_budget() -> None:
    problem = Problem(deep(1), Budget(share=0.4))
    curves = [
        np.linspace(weight, 0, len(one.allowed)) ** 2
        for one, weight in zip(problem.variables, np.linspace(0.1, 2, 10), strict=True)
    ]
    start = uniform_values(problem)
    reached = polish(problem, curves, start)
    assert total(problem, curves, reached) < total(problem, curves, start)
    assert problem.fits(reached)
    assert polish(problem, curves, reached) == reached


def test_threshold_is_common_to_all_layers() -> None:
    problem = Problem(deep(0), Budget(share=0.4))
    curves = [np.linspace(1 + index, 0, len(one.allowed)) for index, one in enumerate(problem.variables)]
    values = threshold_values(problem, curves)
    losses = [
        curve[one.allowed.index(value)] for curve, one, value in zip(curves, problem.variables, values, strict=True)
    ]
    steps = [curve[0] - curve[1] for curve in curves]
    free = [index for index, value in enumerate(values) if value > 1]
    assert max(losses[i] for i in free) - min(losses[i] for i in free) <= 2 * max(steps)


def test_uniform_is_uniform() -> None:
    env = Chain([variable(f"layer{i}", range(1, 101)) for i in range(5)], prices=[1.0] * 5, weights=[1.0] * 5)
    values = uniform_values(Problem(env, Budget(share=0.5)))
    assert max(values) - min(values) <= 1


@given(st.lists(st.floats(0, 1), min_size=3, max_size=20), st.lists(st.floats(-0.5, 2), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_loss_curves_never_rise_with_the_count(errors: list[float], increases: list[float]) -> None:
    curve_of_errors = np.sort(np.array(errors))[::-1]
    measured = np.linspace(0.1, 0.9, len(increases))
    curve = loss_curve(curve_of_errors, measured, np.array(increases))
    assert np.all(np.diff(curve) <= 1e-12)
    assert curve[-1] == 0.0
    assert np.isfinite(curve).all()


def test_a_loss_curve_passes_through_what_was_measured() -> None:
    errors = np.array([1.0, 0.6, 0.3, 0.1, 0.0])
    curve = loss_curve(errors, np.array([0.6, 0.1]), np.array([2.0, 0.5]))
    assert curve == pytest.approx([2.0 + 0.4 * 2.0 / 0.6, 2.0, 0.5 + 0.2 * 3.0, 0.5, 0.0], abs=1e-3)


def test_monotone_is_the_least_non_rising_curve_above() -> None:
    assert monotone(np.array([1.0, 0.4, 0.5, 0.1, 0.0])).tolist() == [1.0, 0.5, 0.5, 0.1, 0.0]


def test_probes_are_allowed_counts_below_the_largest() -> None:
    problem = Problem(three_layers(), Budget())
    assert probe_values(problem, 1, (0.25, 0.5, 1.0)) == (4, 8)
    assert probe_values(problem, 1, (1.0,)) == (1,)
