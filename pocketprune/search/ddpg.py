"""`ddpg`: an agent walks the layers front to back and learns from the score of the whole network (AMC, He et
al. 2018).

One step per free layer; the action is its preserve ratio, kept inside the window from which the budget stays
reachable from above and from below. Every step of a roll-out receives the same reward. The first
`nb_rlouts_min` roll-outs are random vectors on the budget, so that the agent's buffer begins with what it
will have to tell apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.search.agent import Agent
from pocketprune.search.budget import Problem, nearest
from pocketprune.search.interface import Counts
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.random_search import random_counts
from pocketprune.search.settings import SearchSettings

STATE_SIZE = 11


@dataclass(frozen=True)
class Plan:
    """Counts chosen for a roll-out, and how far noise moved the actions (root mean square; 0 while warming
    up)."""

    counts: Counts
    distance: float = 0.0


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Roll out, score, learn, `nb_rlouts` times. Raises UserError where the warm-up leaves no roll-out to the
    agent."""
    check_rollouts(settings)
    walk = Walk(problem, action_floor(problem.budget.share))
    agent = Agent(
        STATE_SIZE,
        low=walk.low,
        high=1.0,
        capacity=len(problem.free) * settings.nb_rlouts_min,
        settings=settings.ddpg,
        seed=seed,
    )
    journal.expected = settings.nb_rlouts
    if journal.agent_state is not None:
        agent.load_state_dict(journal.agent_state["agent"])
        journal.skip_to(journal.agent_state["rollouts"])
    losses = {"critic_loss": math.nan, "actor_loss": math.nan}
    while len(journal.history) < settings.nb_rlouts:
        first = len(journal.history)
        indices = range(first, min(first + settings.parallel, settings.nb_rlouts))
        plans = [_plan(index, walk, agent, settings, seed) for index in indices]
        facts = {"noise_std": agent.noise_std, **losses}
        rollouts = journal.score_many([plan.counts for plan in plans], facts=facts)
        for plan, rollout in zip(plans, rollouts, strict=True):
            losses = _learn(walk, agent, plan, rollout.reward, settings, warm=rollout.index >= settings.nb_rlouts_min)
        journal.checkpoint({"agent": agent.state_dict(), "rollouts": len(journal.history)})


def check_rollouts(settings: SearchSettings) -> None:
    """Raises UserError where the warm-up leaves no roll-out to the agent."""
    if settings.nb_rlouts <= settings.nb_rlouts_min:
        raise UserError(
            f"cp_nb_rlouts: {settings.nb_rlouts} leaves none after the warm-up of {settings.nb_rlouts_min} "
            f"(cp_nb_rlouts_min); at least {settings.nb_rlouts_min + 1}"
        )


def action_floor(share: float) -> float:
    """Least preserve ratio an agent may choose: PocketFlow's 1.5 log10(1 + share), 0.264 at one half."""
    return 1.5 * math.log10(1.0 + share)


class Walk:
    """The problem as a sequence of steps, one per free layer, with AMC's eleven features as states."""

    def __init__(self, problem: Problem, floor: float) -> None:
        self.problem = problem
        self.floors = problem.floors(floor)
        self.low = min((self.floors[i] / problem.layers[i].channels for i in problem.free), default=1.0)
        free = [problem.layers[i] for i in problem.free]
        rows = np.array(
            [
                [
                    step,
                    layer.out_channels,
                    layer.channels,
                    layer.height,
                    layer.width,
                    layer.stride,
                    layer.kernel,
                    layer.macs,
                ]
                for step, layer in enumerate(free)
            ],
            dtype=float,
        ).reshape(len(free), 8)
        self.fixed_features = rows / np.maximum(rows.max(axis=0, initial=0.0), 1e-12)

    def state(self, step: int, decided: Counts) -> Tensor:
        """(11,) features of a step, all in [0, 1]: the layer's eight, the share of the cost that the decided
        layers saved, the share that the others still can, and the previous ratio."""
        problem = self.problem
        rest = len(decided)
        whole = problem.cost((*decided, *problem.channels[rest:]))
        least = problem.cost((*decided, *self.floors[rest:]))
        before = problem.free[step - 1] if step else None
        previous = 1.0 if before is None else decided[before] / problem.channels[before]
        costs = [1.0 - whole / problem.dense_cost, (whole - least) / problem.dense_cost]
        return torch.tensor([*self.fixed_features[step], *costs, previous], dtype=torch.float32)

    def states(self, counts: Counts) -> Tensor:
        """(steps, 11) the states that lead to `counts`."""
        return torch.stack([self.state(step, counts[:layer]) for step, layer in enumerate(self.problem.free)])

    def actions(self, counts: Counts) -> list[float]:
        return [counts[layer] / self.problem.channels[layer] for layer in self.problem.free]

    def roll_out(self, agent: Agent) -> Plan:
        """The agent's counts, each action inside the layer's window; projected where counts are too coarse
        for it."""
        problem, decided, moved = self.problem, (), []
        steps = {layer: step for step, layer in enumerate(problem.free)}
        for index, layer in enumerate(problem.layers):
            if index not in steps:
                decided = (*decided, layer.allowed[0])
                continue
            state = self.state(steps[index], decided)
            action = agent.act(state)
            moved.append(action - agent.act(state, explore=False))
            low, high = problem.window(decided, self.floors)
            decided = (*decided, nearest(layer.allowed, min(max(action * layer.channels, low), high)))
        return Plan(project(problem, decided), float(np.sqrt(np.mean(np.square(moved)))))


def _plan(index: int, walk: Walk, agent: Agent, settings: SearchSettings, seed: int) -> Plan:
    if index < settings.nb_rlouts_min:
        return Plan(_warm_up(index, walk, settings, seed))
    agent.perturb()
    return walk.roll_out(agent)


def _warm_up(index: int, walk: Walk, settings: SearchSettings, seed: int) -> Counts:
    """Random counts on the budget; with a start, itself first and then every other one in its
    neighbourhood."""
    problem, rng = walk.problem, np.random.default_rng([seed, index])
    if settings.start and index == 0:
        return project(problem, settings.start)
    if settings.start and index % 2 == 0:
        return project(problem, np.asarray(settings.start) * np.exp(rng.normal(0.0, 0.2, len(settings.start))))
    return random_counts(problem, rng, walk.low)


def _learn(
    walk: Walk, agent: Agent, plan: Plan, reward: float, settings: SearchSettings, *, warm: bool
) -> dict[str, float]:
    """Remember a roll-out; once the buffer is full, update; once warm, less noise."""
    agent.remember(walk.states(plan.counts), walk.actions(plan.counts), reward)
    losses = (math.nan, math.nan)
    updates = len(walk.problem.free) * settings.ddpg.nb_updates
    for _ in range(updates if agent.buffer.full else 0):
        losses = agent.learn()
    if warm:
        agent.decay_noise(settings.nb_rlouts - settings.nb_rlouts_min, plan.distance)
    return {"critic_loss": losses[0], "actor_loss": losses[1]}
