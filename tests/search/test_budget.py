"""Budgets: reachable range, projection onto them, and the windows that keep them reachable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprune.common.errors import UserError
from pocketprune.search import Budget, SearchSettings, search
from pocketprune.search.budget import Problem, nearest_allowed
from pocketprune.search.projection import project
from tests.search.toys import Chain, all_values, deep, three_layers, variable


@st.composite
def chains(draw: st.DrawFn, most: int = 6) -> Chain:
    """Sets of variables with odd widths, multiples and fixed ones."""
    variables = []
    for index in range(draw(st.integers(1, most))):
        channels = draw(st.integers(1, 24))
        multiple = draw(st.sampled_from([1, 1, 2, 4]))
        allowed = sorted({*range(multiple, channels + 1, multiple), channels})
        variables.append(variable(f"layer{index}", [channels] if draw(st.booleans()) and index == 0 else allowed))
    prices = draw(st.lists(st.floats(0.1, 5.0), min_size=len(variables), max_size=len(variables)))
    return Chain(variables, prices, weights=[1.0] * len(variables))


@given(chains(), st.floats(0.05, 1.0), st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_projection_meets_the_budget_whenever_counts_allow(env: Chain, share: float, seed: int) -> None:
    problem = Problem(env, Budget(share=share))
    wish = np.random.default_rng(seed).uniform(0.05, 1.0, len(env.variables)) * problem.full
    values = project(problem, wish)
    assert all(value in one.allowed for value, one in zip(values, env.variables, strict=True))
    if not problem.meets(values) and np.prod([len(one.allowed) for one in env.variables]) < 3000:
        assert not any(problem.meets(other) for other in all_values(problem))


@given(st.integers(0, 5), st.floats(0.2, 0.95), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_deep_network_always_meets_the_budget_and_is_not_above_it(net: int, share: float, seed: int) -> None:
    problem = Problem(deep(net), Budget(share=share))
    values = project(problem, np.random.default_rng(seed).uniform(0.1, 1.0, 10) * problem.full)
    assert abs(problem.cost(values) / problem.full_cost - share) <= 0.005
    assert problem.fits(values)
    assert project(problem, values) == values


def test_projection_keeps_proportions() -> None:
    env = Chain([variable(f"layer{i}", range(1, 257)) for i in range(4)], prices=[1.0] * 4, weights=[1.0] * 4)
    problem = Problem(env, Budget(share=0.3))
    values = project(problem, [100, 200, 100, 50])
    assert np.allclose(np.array(values) / values[0], [1, 2, 1, 0.5], atol=0.05)


@given(chains(), st.floats(0.05, 1.0), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_windows_lie_in_the_allowed_counts_and_lead_to_the_budget(env: Chain, share: float, seed: int) -> None:
    problem, rng = Problem(env, Budget(share=share)), np.random.default_rng(seed)
    if not problem.cost(problem.lowest) <= problem.target <= problem.cost(problem.highest):
        return
    floors = problem.floors(0.3)
    decided: tuple[int, ...] = ()
    for index, one in enumerate(env.variables):
        low, high = problem.window(decided, floors)
        assert 1 <= low <= high
        assert low in one.allowed
        assert high in one.allowed
        decided = (*decided, nearest_allowed(one.allowed, rng.uniform(low, high)))
        if low < high:  # a real choice leaves the budget between what is still possible below and above
            assert problem.cost((*decided, *floors[index + 1 :])) <= problem.target * (1 + 1e-9)
            assert problem.cost((*decided, *problem.highest[index + 1 :])) >= problem.target * (1 - 1e-9)


def test_the_window_is_the_wall_of_amc_from_both_sides() -> None:
    env = Chain([variable("a", range(1, 11)), variable("b", range(1, 11))], prices=[0.0, 1.0], weights=[1.0, 1.0])
    problem = Problem(env, Budget(share=0.5))  # cost: 8 b, so only b matters, and must be 5
    assert problem.window((), (2, 2)) == (2, 10)
    assert problem.window((3,), (2, 2)) == (5, 5)


def test_an_unbudgeted_layer_under_a_ceiling_may_go_down_to_its_floor() -> None:
    problem = Problem(three_layers(), Budget(share=0.5, ceiling=True))
    assert problem.window((3,), (3, 4, 4, 4))[0] == 4
    assert project(problem, problem.lowest) == problem.lowest
    assert problem.cost(project(problem, problem.highest)) <= 0.505 * problem.full_cost


def test_an_impossible_budget_states_the_reachable_range() -> None:
    env = Chain([variable("image", [8]), variable("a", [4, 8])], prices=[1.0, 1.0], weights=[0.0, 1.0])
    with pytest.raises(UserError, match=r"budget.share: 0.3 .*out of reach; accepted: 0.5000 to 1.0000"):
        search(env, Budget(share=0.3), method="uniform")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(kind="flops"), "budget.kind: 'flops' given; expected one of macs, params, latency"),
        (Budget(share=0.0), "budget.share: 0.0 given"),
        (Budget(share=float("nan")), "budget.share: nan given"),
    ],
)
def test_bad_budgets(budget: Budget, message: str) -> None:
    with pytest.raises(UserError, match=message):
        search(three_layers(), budget, method="uniform")


def test_profile_counts_dimensions_and_gives_reasons() -> None:
    env = three_layers()
    profile = Problem(env, Budget()).profile()
    assert profile.free == 3
    assert profile.fixed == (("image", "reads the image"),)
    assert profile.full == env.cost((3, 16, 16, 16))
    assert profile.uniform_half == env.cost((3, 8, 8, 8))
    assert profile.smallest == env.cost((3, 1, 1, 1))
    assert "fixed: image: reads the image" in profile.lines()


def test_width_multiples_hold_inside_every_search() -> None:
    env = Chain(
        [variable(f"layer{i}", range(4, 33, 4)) for i in range(5)],
        prices=[1.0] * 5,
        weights=[0.1, 0.5, 0.2, 0.4, 0.3],
    )
    few = SearchSettings(nb_rlouts=12, nb_rlouts_min=6, swaps=4)
    for method in ("uniform", "random", "dp", "anneal", "netadapt", "sensitivity", "ddpg"):
        result = search(env, Budget(share=0.5), method=method, settings=few)
        assert all(value % 4 == 0 for rollout in result.history for value in rollout.values), method
        assert abs(result.share - 0.5) <= 0.005, method


def test_floors_give_way_to_a_small_budget() -> None:
    problem = Problem(three_layers(), Budget(share=0.05))
    assert problem.cost(problem.floors(0.5)) <= problem.target
    generous = Problem(three_layers(), Budget(share=0.9))
    assert generous.floors(0.25) == (3, 4, 4, 4)


def test_nearest() -> None:
    assert [nearest_allowed((2, 4, 8), value) for value in (0, 2.9, 3, 5.9, 6, 100)] == [2, 2, 4, 4, 8, 8]
