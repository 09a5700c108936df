"""`curvature`: allocation along curves that take no roll-out, because the environment computes them to second order.

A few values of every variable are priced at once by `PricedEnvironment.divergences`. Between them, the divergence is
interpolated as a function of the variable's error, as in `dp`.
"""

from __future__ import annotations

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.search.allocation import allocate
from pocketprune.search.budget import Problem
from pocketprune.search.curves import loss_curve, monotone, probe_values
from pocketprune.search.interface import PricedEnvironment
from pocketprune.search.journal import Journal
from pocketprune.search.settings import SearchSettings

PROBED = (0.3, 0.45, 0.6, 0.75, 0.88)
"""Shares of a full value at which the divergence is computed."""


def search(problem: Problem, settings: SearchSettings, journal: Journal, seed: int) -> None:
    """Allocate, and score the result in a single roll-out."""
    journal.expected = 1
    journal.score(allocate(problem, divergence_curves(problem)))
    journal.checkpoint()


def divergence_curves(problem: Problem) -> list[np.ndarray]:
    """Return for each variable the expected divergence from the full network at each allowed value.

    Raises:
        UserError: the environment cannot price its variables.
    """
    if not isinstance(problem.env, PricedEnvironment):
        raise UserError("'curvature' given; these variables cannot be priced without roll-outs", argument="method")
    trials = [(index, value) for index in problem.free for value in probe_values(problem, index, PROBED)]
    divergences = problem.env.divergences(trials)
    curves = [np.zeros(len(variable.allowed)) for variable in problem.variables]
    for index in problem.free:
        errors = monotone(problem.env.error_curve(index))
        priced = [(errors[value], cost) for (i, value), cost in zip(trials, divergences, strict=True) if i == index]
        at, increases = np.array(priced).T
        curves[index] = loss_curve(errors[list(problem.variables[index].allowed)], at, increases)
    return curves
