"""`uniform`: one ratio for every free layer, chosen so that the budget is met."""

from __future__ import annotations

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Counts
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score the uniform counts: a single roll-out."""
    journal.expected = 1
    journal.score(uniform_counts(problem))
    journal.checkpoint()


def uniform_counts(problem: Problem) -> Counts:
    """The same preserve ratio in every free layer, up to whole channels, on the budget."""
    return project(problem, problem.channels)
