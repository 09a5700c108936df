"""`anneal`: simulated annealing over counts on the budget (Kirkpatrick et al. 1983).

A move multiplies a few layers' ratios by random factors and scales all of them back onto the budget. A better
network is always accepted, a worse one with probability exp(difference / temperature); the temperature falls
geometrically.
"""

from __future__ import annotations

import math

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings
from pocketprune.search.uniform import uniform_counts

WIDEST_MOVE, NARROWEST_MOVE = 0.5, 0.1  # deviation of a factor's logarithm, at the start and at the end
MOST_LAYERS = 3  # moved at once
ATTEMPTS = 20  # draws before a move that changes nothing is scored after all


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score `nb_rlouts` networks, from `settings.start` or from uniform counts."""
    journal.expected = settings.nb_rlouts
    current = journal.score(project(problem, settings.start) if settings.start else uniform_counts(problem))
    for step in range(1, settings.nb_rlouts):
        rng = np.random.default_rng([seed, step])
        progress = step / settings.nb_rlouts
        trial = journal.score(move(problem, current.counts, rng, progress))
        temperature = settings.temperature * (settings.temperature_finl / settings.temperature) ** progress
        if accepts(trial.reward - current.reward, temperature, rng):
            current = trial
        journal.checkpoint()


def accepts(difference: float, temperature: float, rng: np.random.Generator) -> bool:
    """Metropolis: always for a reward that is no lower, else with probability exp(difference /
    temperature)."""
    return difference >= 0.0 or rng.random() < math.exp(difference / temperature)


def move(problem: Problem, counts: Counts, rng: np.random.Generator, progress: float) -> Counts:
    """A neighbour of `counts` on the budget; moves narrow as `progress` goes from 0 to 1."""
    width = WIDEST_MOVE * (NARROWEST_MOVE / WIDEST_MOVE) ** progress
    for _ in range(ATTEMPTS):
        values = np.array(counts, dtype=float)
        layers = rng.choice(problem.free, size=min(MOST_LAYERS, len(problem.free)), replace=False)
        layers = layers[: rng.integers(1, len(layers) + 1)]
        values[layers] *= np.exp(rng.normal(0.0, width, len(layers)))
        values[layers] += rng.choice([-0.5, 0.5], len(layers))  # narrow layers move by whole channels
        trial = project(problem, np.clip(values, 0.5, problem.channels))
        if trial != counts:
            break
    return trial
