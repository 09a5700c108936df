"""`anneal`: simulated annealing over values on the budget (Kirkpatrick et al. 1983).

A move multiplies a few values by random factors and scales all values back onto the budget. A better network is always
accepted, a worse one with probability exp(difference / temperature). The temperature falls geometrically.
"""

from __future__ import annotations

import math

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Values
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings
from pocketprune.search.uniform import uniform_values

WIDEST_MOVE, NARROWEST_MOVE = 0.5, 0.1  # deviation of a factor's logarithm, at the start and at the end
MOST_MOVED = 3  # variables, at once
ATTEMPTS = 20  # draws before a move that changes nothing is scored after all


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score `nb_rlouts` networks, from `settings.start` or from uniform values."""
    journal.expected = settings.nb_rlouts
    current = journal.score(project(problem, settings.start) if settings.start else uniform_values(problem))
    for step in range(1, settings.nb_rlouts):
        rng = np.random.default_rng([seed, step])
        progress = step / settings.nb_rlouts
        trial = journal.score(move(problem, current.values, rng, progress))
        temperature = settings.temperature * (settings.temperature_finl / settings.temperature) ** progress
        if accepts(trial.reward - current.reward, temperature, rng):
            current = trial
        journal.checkpoint()


def accepts(difference: float, temperature: float, rng: np.random.Generator) -> bool:
    """Return whether to accept a change of the reward: always if it does not fall, else by chance (see above)."""
    return difference >= 0.0 or rng.random() < math.exp(difference / temperature)


def move(problem: Problem, values: Values, rng: np.random.Generator, progress: float) -> Values:
    """Return a neighbour of `values` on the budget. Moves get smaller as `progress` goes from 0 to 1."""
    width = WIDEST_MOVE * (NARROWEST_MOVE / WIDEST_MOVE) ** progress
    for _ in range(ATTEMPTS):
        wish = np.array(values, dtype=float)
        moved = rng.choice(problem.free, size=min(MOST_MOVED, len(problem.free)), replace=False)
        moved = moved[: rng.integers(1, len(moved) + 1)]
        wish[moved] *= np.exp(rng.normal(0.0, width, len(moved)))
        wish[moved] += rng.choice([-0.5, 0.5], len(moved))  # small values move too
        trial = project(problem, np.clip(wish, 0.5, problem.full))
        if trial != values:
            break
    return trial
