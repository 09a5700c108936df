"""`uniform`: the same share of every full value, chosen so that the budget is met."""

from __future__ import annotations

from pocketprune.search.budget import Problem
from pocketprune.search.interface import Values
from pocketprune.search.journal import Journal
from pocketprune.search.projection import project
from pocketprune.search.settings import SearchSettings


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Score the uniform values, in a single roll-out."""
    journal.expected = 1
    journal.score(uniform_values(problem))
    journal.checkpoint()


def uniform_values(problem: Problem) -> Values:
    """Return the same share of every full value, up to whole numbers, on the budget."""
    return project(problem, problem.full)
