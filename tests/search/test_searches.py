"""Every searcher on problems whose answer is known, and on the rules they all keep."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.search import SEARCHES, Budget, Hooks, SearchSettings, SensitivityTable, search
from pocketprune.search.anneal import accepts
from pocketprune.search.budget import Problem
from tests.search.toys import Chain, brute_force, deep, three_layers, variable

QUICK = SearchSettings(nb_rlouts=24, nb_rlouts_min=8, swaps=10)


@pytest.mark.parametrize("share", [0.5, 0.3])
@pytest.mark.parametrize("method", ["dp", "anneal"])
def test_direct_searches_find_the_best_of_four_thousand_networks(method: str, share: float) -> None:
    best = brute_force(Problem(three_layers(), Budget(share=share)))
    result = search(three_layers(), Budget(share=share), method=method, seed=3)
    assert result.score.accuracy >= best - 0.002


@pytest.mark.parametrize("share", [0.5, 0.3])
@pytest.mark.parametrize("method", ["netadapt", "sensitivity", "curvature"])
def test_greedy_searches_come_near_it_and_far_above_uniform(method: str, share: float) -> None:
    best = brute_force(Problem(three_layers(), Budget(share=share)))
    uniform = search(three_layers(), Budget(share=share), method="uniform").score.accuracy
    reached = search(three_layers(), Budget(share=share), method=method).score.accuracy
    assert reached >= uniform + 0.45 * (best - uniform)


def test_the_agent_finds_the_best_network() -> None:
    problem = Problem(three_layers(), Budget(share=0.5))
    settings = SearchSettings(nb_rlouts=110, nb_rlouts_min=30)
    results = [
        search(three_layers(), Budget(share=0.5), method="ddpg", settings=settings, seed=seed) for seed in (0, 1)
    ]
    assert min(result.score.accuracy for result in results) >= brute_force(problem) - 0.01


@pytest.mark.slow
def test_the_agent_learns_where_random_vectors_do_not() -> None:
    settings = SearchSettings(nb_rlouts=100, nb_rlouts_min=30)
    history = search(deep(0), Budget(share=0.4), method="ddpg", settings=settings, seed=1).history
    warm_up, late = [[one.reward for one in part] for part in (history[:30], history[-20:])]
    assert np.mean(late) > np.max(warm_up) - 0.02
    assert np.mean(late) > np.mean(warm_up) + 2 * np.std(warm_up)


def test_allocation_beats_random_and_uniform_on_a_deep_network() -> None:
    def reached(method: str, env: int) -> float:
        return search(deep(env), Budget(share=0.3), method=method, settings=SearchSettings(nb_rlouts=100)).reward

    for env in (0, 1, 2):
        assert reached("dp", env) > max(reached("random", env), reached("uniform", env)) + 0.01
        assert reached("anneal", env) > max(reached("random", env), reached("uniform", env))


@pytest.mark.parametrize("method", SEARCHES)
def test_every_search_is_on_budget_scored_and_reproducible(method: str) -> None:
    before = torch.random.get_rng_state()
    first, again = (search(deep(1), Budget(share=0.35), method=method, settings=QUICK, seed=5) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.random.get_rng_state())
    assert abs(first.share - 0.35) <= 0.005
    env = deep(1)
    assert first.score == env.score(first.values)
    assert first.cost == env.cost(first.values)
    assert first.reward == max(one.reward for one in first.history if one.kind == "rollout")


@pytest.mark.parametrize("method", ["ddpg", "random", "anneal", "dp"])
def test_seeds_matter(method: str) -> None:
    histories = [
        search(deep(1), Budget(share=0.35), method=method, settings=QUICK, seed=seed).history for seed in (0, 1)
    ]
    assert histories[0] != histories[1]


@pytest.mark.parametrize(
    "stop", [11, pytest.param(1, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("method", SEARCHES)
def test_a_killed_search_continues_to_the_same_result(method: str, stop: int) -> None:
    class KilledError(Exception):
        pass

    states = []

    def save(state: dict) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        states.append(file)
        if len(states) == stop:
            raise KilledError

    def run(hooks: Hooks, env: Chain) -> object:
        return search(env, Budget(share=0.35), method=method, settings=QUICK, seed=5, hooks=hooks)

    whole = run(Hooks(), deep(1))
    with contextlib.suppress(KilledError):  # `uniform` is over before it can be killed
        run(Hooks(save=save), deep(1))
    states[-1].seek(0)
    state = torch.load(states[-1], weights_only=True)
    env = deep(1)
    assert run(Hooks(resume=state), env) == whole
    paid = {tuple(entry["counts"]) for entry in state["history"]}
    assert not paid & set(env.scored)  # nothing is evaluated twice


@pytest.mark.parametrize(
    ("changes", "seed", "share", "message"),
    [
        ({"nb_rlouts": 25}, 5, 0.35, "nb_rlouts was 24 in the interrupted search and is 25 now"),
        ({}, 6, 0.35, "seed was 5 in the interrupted search and is 6 now"),
        ({}, 5, 0.4, "budget share was 0.35 in the interrupted search and is 0.4 now"),
    ],
)
def test_resuming_with_other_flags_is_refused(changes: dict, seed: int, share: float, message: str) -> None:
    states: list[dict] = []
    search(deep(1), Budget(share=0.35), method="random", settings=QUICK, seed=5, hooks=Hooks(save=states.append))
    with pytest.raises(UserError, match=message):
        search(
            deep(1),
            Budget(share=share),
            method="random",
            settings=dataclasses.replace(QUICK, **changes),
            seed=seed,
            hooks=Hooks(resume=states[0]),
        )


def test_resuming_on_another_network_is_refused() -> None:
    states: list[dict] = []
    search(deep(1), Budget(share=0.35), method="random", settings=QUICK, hooks=Hooks(save=states.append))
    env = deep(1)
    env.prices = [2.0 * price if i else price for i, price in enumerate(env.prices)]
    with pytest.raises(UserError, match="resume with the same network, data and settings"):
        search(env, Budget(share=0.35), method="random", settings=QUICK, hooks=Hooks(resume=states[0]))


def test_too_few_rollouts_for_the_agent() -> None:
    with pytest.raises(UserError, match=r"nb_rlouts: 50 leaves none after the warm-up of 50.*at least 51"):
        search(three_layers(), Budget(), method="ddpg", settings=SearchSettings(nb_rlouts=50))


def test_unknown_search_and_policy() -> None:
    with pytest.raises(UserError, match="method: 'ppo' given; expected one of dp, curvature, ddpg"):
        search(three_layers(), Budget(), method="ppo")
    with pytest.raises(UserError, match="reward_policy: 'top5' given; expected one of divergence, accuracy"):
        search(three_layers(), Budget(), method="dp", settings=SearchSettings(reward_policy="top5"))


def test_a_network_without_a_choice_is_scored_as_it_is() -> None:
    env = Chain([variable("image", [3]), variable("only", [8])], prices=[1.0, 1.0], weights=[1.0, 1.0])
    result = search(env, Budget(share=1.0), method="ddpg")
    assert result.values == (3, 8)
    with pytest.raises(UserError, match=r"1\.0000 to 1\.0000"):
        search(env, Budget(share=0.5), method="ddpg")


def test_the_flops_policy_goes_below_its_ceiling_where_accuracy_is_cheap() -> None:
    env = three_layers(decays=[8.0] * 4)
    settings = SearchSettings(nb_rlouts=80, nb_rlouts_min=30, reward_policy="flops", noise_tolerance=0.15)
    result = search(env, Budget(share=0.9, ceiling=True), method="ddpg", settings=settings)
    assert result.share < 0.8
    assert result.reward == pytest.approx(-max(0.15, 1 - result.score.accuracy) * np.log(result.cost))


def test_a_sensitivity_table_serves_another_budget(tmp_path) -> None:
    tables: list[SensitivityTable] = []
    first = search(deep(2), Budget(share=0.5), method="sensitivity", hooks=Hooks(on_table=tables.append))
    tables[0].save(tmp_path / "sensitivity.csv")
    table = SensitivityTable.load(tmp_path / "sensitivity.csv")
    assert table == tables[0]
    again = search(deep(2), Budget(share=0.5), method="sensitivity", hooks=Hooks(table=table))
    assert again.values == first.values
    other = search(deep(2), Budget(share=0.3), method="sensitivity", hooks=Hooks(table=table))
    assert len(other.history) == 2  # the dense network, to see that the table is its own, and the result
    with pytest.raises(UserError, match="no line for layer1 of 8"):
        search(deep(3), Budget(share=0.5), method="sensitivity", hooks=Hooks(table=table))
    foreign = dataclasses.replace(table, full=dataclasses.replace(table.full, loss=0.2))
    with pytest.raises(UserError, match="measured on another network or split"):
        search(deep(2), Budget(share=0.5), method="sensitivity", hooks=Hooks(table=foreign))


def test_metropolis_accepts_by_the_stated_probability() -> None:
    rng = np.random.default_rng(0)
    draws = [accepts(-0.02, 0.03, rng) for _ in range(4000)]
    assert np.mean(draws) == pytest.approx(np.exp(-2 / 3), abs=0.02)
    assert all(accepts(gain, 0.03, rng) for gain in (0.0, 0.5))


def test_a_start_is_where_anneal_and_the_agent_begin() -> None:
    start = search(deep(1), Budget(share=0.35), method="dp").values
    for method in ("anneal", "ddpg"):
        settings = dataclasses.replace(QUICK, start=start)
        result = search(deep(1), Budget(share=0.35), method=method, settings=settings)
        assert result.history[0].values == start
        assert result.reward >= result.history[0].reward


def test_a_start_of_another_network_is_refused() -> None:
    with pytest.raises(UserError, match="start: 2 values given; expected one per variable"):
        search(three_layers(), Budget(), method="anneal", settings=SearchSettings(start=(1, 2)))
