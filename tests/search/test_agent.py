"""The agent on tasks with a known answer, and its parts."""

import numpy as np
import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.search.agent import Agent, ReplayBuffer, RewardBaseline, truncated_normal
from pocketprune.search.settings import DdpgSettings, SearchSettings


def target_of(states: torch.Tensor) -> torch.Tensor:
    return 0.2 + 0.6 * states[:, 0] * states[:, 1]


def reach_targets(settings: DdpgSettings, *, seed: int, rollouts: int = 150, warm_up: int = 30) -> float:
    """Mean distance of the clean agent's actions from targets that depend on the state, after learning."""
    rng = np.random.default_rng(seed)
    agent = Agent(4, low=0.1, high=1.0, capacity=8 * warm_up, settings=settings, seed=seed)

    def states() -> torch.Tensor:
        return torch.tensor(rng.uniform(size=(8, 4)), dtype=torch.float32)

    for rollout in range(rollouts):
        agent.perturb()
        met = states()
        actions = [float(rng.uniform(0.1, 1.0)) if rollout < warm_up else agent.act(state) for state in met]
        distance = (torch.tensor(actions) - target_of(met)).abs().mean()
        agent.remember(met, actions, -float(distance))
        for _ in range(16 if agent.buffer.full else 0):
            agent.learn()
        if rollout >= warm_up:
            agent.decay_noise(rollouts - warm_up, float(distance))
    tests = torch.cat([states() for _ in range(20)])
    reached = torch.tensor([agent.act(state, explore=False) for state in tests])
    return float((reached - target_of(tests)).abs().mean())


@pytest.mark.parametrize("noise", ["param", pytest.param("action", marks=pytest.mark.slow)])
def test_the_agent_learns_to_reach_targets(noise: str) -> None:
    """A constant action is 0.12 away at best, a random one 0.27."""
    settings = DdpgSettings(noise_type=noise, gamma=0.0, noise_std_init=0.3, noise_std_finl=0.02)
    assert reach_targets(settings, seed=0) < 0.1


def test_state_dict_restores_every_later_step() -> None:
    def agent() -> Agent:
        return Agent(3, low=0.0, high=1.0, capacity=12, settings=DdpgSettings(batch_size=8), seed=4)

    def continue_(one: Agent) -> list[float]:
        seen = []
        for _ in range(5):
            one.perturb()
            states = torch.linspace(0, 1, 12).reshape(4, 3)
            actions = [one.act(state) for state in states]
            one.remember(states, actions, reward=sum(actions))
            seen += [*actions, *one.learn(), one.noise_std]
            one.decay_noise(10, 0.0)
        return seen

    first, second = agent(), agent()
    continue_(first)
    second.load_state_dict(first.state_dict())
    assert continue_(first) == continue_(second)


def test_the_buffer_is_a_ring_and_full_after_the_warm_up() -> None:
    buffer = ReplayBuffer(3, states=2)
    for step in range(4):
        assert buffer.full == (step >= 3)
        buffer.store(torch.full((2,), step), step, 10.0 * step, torch.full((2,), step + 1), done=step == 3)
    states, actions, rewards, following, done = buffer.sample(200, torch.Generator().manual_seed(0))
    assert sorted(set(actions.tolist())) == [1, 2, 3]
    assert torch.equal(rewards, 10 * actions)
    assert torch.equal(states[:, 0], actions)
    assert torch.equal(following, states + 1)
    assert torch.equal(done, (actions == 3).float())


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_nth_transition_is_stored_and_fills_the_buffer(every: int) -> None:
    settings = DdpgSettings(record_step=every)
    agent = Agent(1, low=0.0, high=1.0, capacity=5 * 4, settings=settings, seed=0)
    for rollout in range(4):
        agent.remember(torch.zeros(5, 1), [rollout * 5 + step for step in range(5)], 0.0)
    assert agent.buffer.full
    assert set(agent.buffer.rows[:, 1].tolist()) <= set(range(0, 20, every))


def test_rewards_are_relative_to_their_moving_average_and_deviation() -> None:
    baseline = RewardBaseline(DdpgSettings(bsln_decy_rate=0.5, rms_eps=1e-12))
    for reward in (1.0, 3.0):
        baseline.add(reward)
    assert baseline.mean == 2.0
    assert baseline.variance == pytest.approx(0.5 * 0.5 * 4)
    assert baseline.relative(torch.tensor([3.0])).item() == pytest.approx(1.0)


def test_truncated_normal_follows_its_distribution() -> None:
    generator = torch.Generator().manual_seed(1)
    draws = np.array([truncated_normal(0.3, 0.5, 0.1, 1.0, generator) for _ in range(4000)])
    assert draws.min() >= 0.1
    assert draws.max() <= 1.0
    grid = np.linspace(0.1, 1.0, 10_001)
    density = np.exp(-0.5 * ((grid - 0.3) / 0.5) ** 2)
    assert draws.mean() == pytest.approx((grid * density).sum() / density.sum(), abs=0.02)
    assert truncated_normal(0.7, 1e-6, 0.1, 1.0, generator) == pytest.approx(0.7, abs=1e-4)


def test_noise_decays_to_its_final_deviation() -> None:
    agent = Agent(1, low=0.0, high=1.0, capacity=1, settings=DdpgSettings(), seed=0)
    for _ in range(150):
        agent.decay_noise(150, 0.0)
    assert agent.noise_std == pytest.approx(1e-5)


def test_adaptive_noise_keeps_its_distance() -> None:
    settings = DdpgSettings(noise_prtl="adapt", noise_dst_finl=0.05, noise_adpt_rat=1.2)
    agent = Agent(2, low=0.0, high=1.0, capacity=1, settings=settings, seed=0)
    states, distances = torch.rand(10, 2, generator=torch.Generator().manual_seed(0)), []
    for _ in range(60):
        agent.perturb()
        moved = [agent.act(state) - agent.act(state, explore=False) for state in states]
        distances.append(float(np.sqrt(np.mean(np.square(moved)))))
        agent.decay_noise(60, distances[-1])
    assert 0.02 < np.mean(distances[-20:]) < 0.12


def test_layer_norms_are_not_perturbed() -> None:
    agent = Agent(2, low=0.0, high=1.0, capacity=1, settings=DdpgSettings(), seed=0)
    agent.perturb()
    for (name, clean), noisy in zip(agent.actor.named_parameters(), agent.acting.parameters(), strict=True):
        is_norm = "body.1" in name or "body.4" in name
        assert torch.equal(clean, noisy) == is_norm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor_depth": 0}, r"ddpg.actor_depth: 0 given; expected a whole number in \[1, 100\]"),
        ({"tau": 1.5}, r"ddpg.tau: 1.5 given; expected a number in \[0, 1\]"),
        ({"noise_type": "ou"}, "ddpg.noise_type: 'ou' given; expected one of param, action"),
        ({"lrn_rate": 0.0}, "ddpg.lrn_rate: 0.0 given; expected a number > 0"),
        ({"noise_std_init": float("nan")}, "ddpg.noise_std_init: nan given; expected a number > 0"),
    ],
)
def test_bad_settings(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchSettings(ddpg=DdpgSettings(**changes)).check()
