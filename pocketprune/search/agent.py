"""A DDPG agent for one bounded action per step (Lillicrap et al., arXiv 1509.02971), seeded and resumable.

As in PocketFlow, the networks are layer-normalised, exploration perturbs the actor's weights (Plappert et al., arXiv
1706.01905) or the action, learning begins when the ring buffer is full, and the moving average of the rewards is
subtracted from them. Unlike there, the average is subtracted when a transition is used, not when it is stored, and
rewards are divided by their running deviation, because accuracies under one budget differ by hundredths.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.search.settings import DdpgSettings


def hidden_layers(inputs: int, width: int, depth: int) -> nn.Sequential:
    """Return a network of `depth` blocks, each a linear layer, a layer norm and a ReLU."""
    sizes = itertools.pairwise([inputs, *[width] * depth])
    return nn.Sequential(
        *itertools.chain.from_iterable((nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU()) for a, b in sizes)
    )


class Actor(nn.Module):
    """The network from states (m, s) to actions (m,) in [low, high]."""

    def __init__(self, states: int, low: float, high: float, settings: DdpgSettings) -> None:
        super().__init__()
        self.body = hidden_layers(states, settings.actor_width, settings.actor_depth)
        self.head = nn.Linear(settings.actor_width, 1)
        self.low, self.high = low, high

    def forward(self, states: Tensor) -> Tensor:
        """Return the actions (m,) for states (m, s)."""
        share = torch.sigmoid(self.head(self.body(states))).squeeze(-1)
        return self.low + (self.high - self.low) * share


class Critic(nn.Module):
    """The network from states (m, s) and actions (m,) to expected returns (m,)."""

    def __init__(self, states: int, settings: DdpgSettings) -> None:
        super().__init__()
        width = settings.critic_width
        self.state = hidden_layers(states, width, 1)
        self.body = hidden_layers(width + 1, width, settings.critic_depth)
        self.head = nn.Linear(width, 1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the expected returns (m,) of actions (m,) in states (m, s)."""
        returns: Tensor = self.head(self.body(torch.cat([self.state(states), actions[:, None]], dim=1)))
        return returns.squeeze(-1)


class ReplayBuffer:
    """A ring of transitions, in one float tensor.

    A row holds the state, the action, the reward, the next state, and 1 at the end of a roll-out or else 0.
    """

    def __init__(self, capacity: int, states: int) -> None:
        self.rows = torch.zeros(capacity, 2 * states + 3)
        self.states = states
        self.stored = 0

    @property
    def full(self) -> bool:
        """Whether the ring holds as many transitions as it can."""
        return self.stored >= len(self.rows)

    def store(self, state: Tensor, action: float, reward: float, following: Tensor, done: bool) -> None:
        """Store a transition, in place of the oldest one if the ring is full."""
        self.rows[self.stored % len(self.rows)] = torch.cat(
            [state, torch.tensor([action, reward]), following, torch.tensor([float(done)])]
        )
        self.stored += 1

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return `size` rows drawn with replacement: states, actions, rewards, next states, done."""
        filled = min(self.stored, len(self.rows))
        rows = self.rows[torch.randint(filled, (size,), generator=generator)]
        s = self.states
        return rows[:, :s], rows[:, s], rows[:, s + 1], rows[:, s + 2 : -1], rows[:, -1]


class RewardBaseline:
    """The moving mean and variance of the rewards of roll-outs. The first reward is the first mean."""

    def __init__(self, settings: DdpgSettings) -> None:
        self.settings = settings
        self.mean, self.variance, self.seen = 0.0, 0.0, 0

    def add(self, reward: float) -> None:
        """Update the mean and the variance with the reward of a roll-out."""
        decay = self.settings.bsln_decy_rate if self.seen else 0.0
        deviation = reward - self.mean
        self.variance = decay * (self.variance + (1.0 - decay) * deviation * deviation)
        self.mean += (1.0 - decay) * deviation
        self.seen += 1

    def relative(self, rewards: Tensor) -> Tensor:
        """Return the rewards minus their mean, if that is wanted, divided by their deviation."""
        mean = self.mean if self.settings.enbl_bsln_func else 0.0
        deviation: float = max(self.variance, self.settings.rms_eps) ** 0.5
        return (rewards - mean) / deviation


class Agent:
    """An actor and a critic that learn from roll-outs. All draws come from the agent's own generator.

    Args:
        states: numbers in a state.
        low: least action.
        high: greatest action.
        capacity: size of the buffer in transitions.
        settings: those of the agent.
        seed: of its generator.
    """

    def __init__(
        self, states: int, *, low: float, high: float, capacity: int, settings: DdpgSettings, seed: int
    ) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(states, low, high, settings)
            self.critic = Critic(states, settings)
        self.acting = copy.deepcopy(self.actor)
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.buffer = ReplayBuffer(max(1, capacity // settings.record_step), states)
        self.baseline = RewardBaseline(settings)
        self.noise_std = settings.noise_std_init
        self.met = 0  # transitions offered to the buffer
        self._optimizers = {
            name: torch.optim.Adam(net.parameters(), lr=settings.lrn_rate, weight_decay=settings.loss_w_dcy, fused=True)
            for name, net in (("actor", self.actor), ("critic", self.critic))
        }

    def perturb(self) -> None:
        """Draw the noise of the next roll-out. Parameter noise changes all weights but those of the layer norms."""
        self.acting.load_state_dict(self.actor.state_dict())
        if self.settings.noise_type == "param":
            with torch.no_grad():
                for module in self.acting.modules():
                    for weight in module.parameters() if isinstance(module, nn.Linear) else ():
                        weight.add_(self.noise_std * torch.randn(weight.shape, generator=self.generator))

    @torch.no_grad()
    def act(self, state: Tensor, *, explore: bool = True) -> float:
        """Return the action for one state (s,). With `explore`, it is a noisy one."""
        actor = self.acting if explore else self.actor
        action = float(actor(state[None]))
        if explore and self.settings.noise_type == "action":
            action = truncated_normal(action, self.noise_std, actor.low, actor.high, self.generator)
        return action

    def remember(self, states: Tensor, actions: Iterable[float], reward: float) -> None:
        """Store a finished roll-out: states (t, s), t actions, and the reward that every step receives."""
        self.baseline.add(reward)
        following = torch.cat([states[1:], torch.zeros_like(states[:1])])
        for step, action in enumerate(actions):
            if self.met % self.settings.record_step == 0:
                self.buffer.store(states[step], action, reward, following[step], step == len(states) - 1)
            self.met += 1

    def learn(self) -> tuple[float, float]:
        """Update both networks and their targets once. Return the critic's and the actor's loss."""
        states, actions, rewards, following, done = self.buffer.sample(self.settings.batch_size, self.generator)
        with torch.no_grad():
            later = self.target_critic(following, self.target_actor(following))
            returns = self.baseline.relative(rewards) + self.settings.gamma * (1.0 - done) * later
        critic_loss = nn.functional.mse_loss(self.critic(states, actions), returns)
        self._descend("critic", critic_loss, self.critic.parameters())
        actor_loss = -self.critic(states, self.actor(states)).mean()
        self._descend("actor", actor_loss, self.actor.parameters())
        with torch.no_grad():
            for target, source in self._pairs():
                target.lerp_(source, self.settings.tau)
        return critic_loss.item(), actor_loss.item()

    def decay_noise(self, rollouts: int, distance: float) -> None:
        """Change the noise, once per roll-out.

        With "tdecy" the noise falls by a constant factor that reaches noise_std_finl after `rollouts`. With "adapt" it
        changes so that the `distance` between clean and noisy actions comes nearer to noise_dst_finl.
        """
        settings = self.settings
        if settings.noise_prtl == "tdecy":
            self.noise_std *= (settings.noise_std_finl / settings.noise_std_init) ** (1.0 / max(1, rollouts))
        elif distance > settings.noise_dst_finl:
            self.noise_std /= settings.noise_adpt_rat
        else:
            self.noise_std *= settings.noise_adpt_rat

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as plain tensors and primitives."""
        return {
            "nets": {name: copy.deepcopy(net.state_dict()) for name, net in self._nets().items()},
            "optimizers": {name: copy.deepcopy(opt.state_dict()) for name, opt in self._optimizers.items()},
            "rows": self.buffer.rows.clone(),
            "stored": self.buffer.stored,
            "met": self.met,
            "baseline": [self.baseline.mean, self.baseline.variance, self.baseline.seen],
            "noise_std": self.noise_std,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, net in self._nets().items():
            net.load_state_dict(state["nets"][name])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.buffer.rows.copy_(state["rows"])
        self.buffer.stored, self.met = state["stored"], state["met"]
        self.baseline.mean, self.baseline.variance, self.baseline.seen = state["baseline"]
        self.noise_std = state["noise_std"]
        self.generator.set_state(state["generator"])

    def _nets(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "acting": self.acting,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
        }

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.target_actor.parameters(), self.actor.parameters(), strict=True)
        yield from zip(self.target_critic.parameters(), self.critic.parameters(), strict=True)

    def _descend(self, name: str, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        parameters = list(parameters)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizers[name].step()


def truncated_normal(mean: float, std: float, low: float, high: float, generator: torch.Generator) -> float:
    """Draw from N(mean, std²) conditioned on [low, high], by inverting its distribution function."""
    edges = torch.special.ndtr(torch.tensor([(low - mean) / std, (high - mean) / std], dtype=torch.float64))
    share = torch.rand((), generator=generator, dtype=torch.float64)
    draw = mean + std * float(torch.special.ndtri(edges[0] + share * (edges[1] - edges[0])))
    return min(max(draw, low), high)
