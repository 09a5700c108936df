"""`ddpg`: an agent walks the variables in order and learns from the score of the whole network (AMC, He et al. 2018).

There is one step per free variable. The action is its value as a share of the full one. It is kept inside the window
from which the budget stays reachable from above and from below. Every step of a roll-out receives the same reward. The
first `nb_rlouts_min` roll-outs are random values on the budget, so that the agent first learns from such values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.search.agent import Agent
from pocketprune.search.budget import Problem, nearest_allowed
from pocketprune.search.interface import Values
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.random_search import random_values
from pocketprune.search.settings import SearchSettings

JOINT_FEATURES = 3  # of a state: they depend on the values decided so far


@dataclass(frozen=True)
class Plan:
    """The values of one roll-out.

    Attributes:
        values: one for every variable.
        distance: the root mean square by which noise changed the actions; 0 in the warm-up.
    """

    values: Values
    distance: float = 0.0


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Roll out, score and learn `nb_rlouts` times.

    Raises:
        UserError: the warm-up leaves no roll-out to the agent.
    """
    check_rollouts(settings)
    walk = Walk(problem, action_floor(problem.budget.share))
    agent = Agent(
        walk.state_size,
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
        rollouts = journal.score_many([plan.values for plan in plans], facts=facts)
        for plan, rollout in zip(plans, rollouts, strict=True):
            losses = _learn(walk, agent, plan, rollout.reward, settings, warm=rollout.index >= settings.nb_rlouts_min)
        journal.checkpoint({"agent": agent.state_dict(), "rollouts": len(journal.history)})


def check_rollouts(settings: SearchSettings) -> None:
    """Raise a UserError if the warm-up leaves no roll-out to the agent."""
    if settings.nb_rlouts <= settings.nb_rlouts_min:
        raise UserError(
            f"{settings.nb_rlouts} leaves none after the warm-up of {settings.nb_rlouts_min} (nb_rlouts_min); "
            f"expected at least {settings.nb_rlouts_min + 1}",
            argument="nb_rlouts",
        )


def action_floor(share: float) -> float:
    """Return the least share an agent may choose: PocketFlow's 1.5 log10(1 + share), 0.264 at one half."""
    return 1.5 * math.log10(1.0 + share)


class Walk:
    """The problem as a sequence of steps, one per free variable, with states as in AMC.

    A state holds the step's number, the variable's features, the share of the cost that the decided variables save, the
    share that the other variables can save, and the previous action. All of them lie in [0, 1].
    """

    def __init__(self, problem: Problem, floor: float) -> None:
        self.problem = problem
        self.floors = problem.floors(floor)
        self.low = min((self.floors[i] / problem.variables[i].full for i in problem.free), default=1.0)
        free = [problem.variables[i] for i in problem.free]
        rows = np.array([[step, *variable.features] for step, variable in enumerate(free)], dtype=float)
        self.state_size = rows.shape[1] + JOINT_FEATURES
        self.fixed_features = rows / np.maximum(rows.max(axis=0, initial=0.0), 1e-12)

    def state(self, step: int, decided: Values) -> Tensor:
        """Return the state (state_size,) of a step after the values decided so far."""
        problem = self.problem
        rest = len(decided)
        whole = problem.cost((*decided, *problem.full[rest:]))
        least = problem.cost((*decided, *self.floors[rest:]))
        before = problem.free[step - 1] if step else None
        previous = 1.0 if before is None else decided[before] / problem.full[before]
        costs = [1.0 - whole / problem.full_cost, (whole - least) / problem.full_cost]
        return torch.tensor([*self.fixed_features[step], *costs, previous], dtype=torch.float32)

    def states(self, values: Values) -> Tensor:
        """Return the states (steps, state_size) that lead to `values`."""
        return torch.stack([self.state(step, values[:index]) for step, index in enumerate(self.problem.free)])

    def actions(self, values: Values) -> list[float]:
        """Return the actions that lead to `values`."""
        return [values[index] / self.problem.full[index] for index in self.problem.free]

    def roll_out(self, agent: Agent) -> Plan:
        """Return the agent's values, each inside its window, projected onto the budget."""
        problem, moved = self.problem, []
        decided: Values = ()
        steps = {index: step for step, index in enumerate(problem.free)}
        for index, variable in enumerate(problem.variables):
            if index not in steps:
                decided = (*decided, variable.allowed[0])
                continue
            state = self.state(steps[index], decided)
            action = agent.act(state)
            moved.append(action - agent.act(state, explore=False))
            low, high = problem.window(decided, self.floors)
            wish = min(max(action * variable.full, low), high)
            decided = (*decided, nearest_allowed(variable.allowed, wish))
        return Plan(project(problem, decided), float(np.sqrt(np.mean(np.square(moved)))))


def _plan(index: int, walk: Walk, agent: Agent, settings: SearchSettings, seed: int) -> Plan:
    if index < settings.nb_rlouts_min:
        return Plan(_warm_up(index, walk, settings, seed))
    agent.perturb()
    return walk.roll_out(agent)


def _warm_up(index: int, walk: Walk, settings: SearchSettings, seed: int) -> Values:
    """Return random values on the budget.

    With a start, the first ones are the start itself, and every other one after that is drawn near it.
    """
    problem, rng = walk.problem, np.random.default_rng([seed, index])
    if settings.start and index == 0:
        return project(problem, settings.start)
    if settings.start and index % 2 == 0:
        return project(problem, np.asarray(settings.start) * np.exp(rng.normal(0.0, 0.2, len(settings.start))))
    return random_values(problem, rng, walk.low)


def _learn(
    walk: Walk, agent: Agent, plan: Plan, reward: float, settings: SearchSettings, *, warm: bool
) -> dict[str, float]:
    """Store a roll-out. Update the agent if its buffer is full, and reduce the noise after the warm-up."""
    agent.remember(walk.states(plan.values), walk.actions(plan.values), reward)
    losses = (math.nan, math.nan)
    updates = len(walk.problem.free) * settings.ddpg.nb_updates
    for _ in range(updates if agent.buffer.full else 0):
        losses = agent.learn()
    if warm:
        agent.decay_noise(settings.nb_rlouts - settings.nb_rlouts_min, plan.distance)
    return {"critic_loss": losses[0], "actor_loss": losses[1]}
