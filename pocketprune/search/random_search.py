"""`random`: the best of many random values on the budget (EagleEye, Li et al. 2020). This is the baseline."""

from __future__ import annotations

import numpy as np

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Values
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings

LEAST_SHARE = 0.1  # of a full value, before the projection


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score `nb_rlouts` random sets of values."""
    journal.expected = settings.nb_rlouts
    journal.score_all(
        [
            random_values(problem, np.random.default_rng([seed, index]), LEAST_SHARE)
            for index in range(settings.nb_rlouts)
        ]
    )


def random_values(problem: Problem, rng: np.random.Generator, least: float) -> Values:
    """Draw each value's share of the full one from [least, 1], and scale all of them together onto the budget."""
    return project(problem, rng.uniform(least, 1.0, len(problem.variables)) * problem.full)
