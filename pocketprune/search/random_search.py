"""`random`: the best of many random width vectors, all on the budget (EagleEye, Li et al. 2020): the honest
baseline."""

from __future__ import annotations

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings

LEAST_RATIO = 0.1


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score `nb_rlouts` random vectors."""
    journal.expected = settings.nb_rlouts
    journal.score_all(
        [
            random_counts(problem, np.random.default_rng([seed, index]), LEAST_RATIO)
            for index in range(settings.nb_rlouts)
        ]
    )


def random_counts(problem: Problem, rng: np.random.Generator, least: float) -> Counts:
    """Ratios uniform in [least, 1], layer by layer, then scaled together onto the budget."""
    return project(problem, rng.uniform(least, 1.0, len(problem.layers)) * problem.channels)
