"""How much lowering each variable costs: a measured table, and curves through it that cover every value.

A few values of every variable are scored with all other variables at their highest. The noise of some hundreds of
labels is larger than one variable's effect on loss and accuracy. The effect is therefore measured as the divergence
from the full network's predictions. Between the measured values, the divergence is interpolated as a function of the
variable's error, which is known for every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from pocketprune.search.budget import Problem, nearest_allowed
from pocketprune.search.interface import Values, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.table import FULL, Sensitivity, SensitivityTable

ERROR_WEIGHT = 1e-4  # keeps curves falling with the error where no loss increase was measured


def sensitivity_table(problem: Problem, probes: Sequence[float], journal: Journal) -> SensitivityTable:
    """Return the journal's table if it was given one. Otherwise measure one, and pass it to the hook `on_table`.

    Raises:
        UserError: the journal's table was measured on another network or on other held-out examples.
    """
    full = journal.score(problem.highest, kind="probe")
    if journal.hooks.table is not None:
        journal.hooks.table.check(problem, full.score)
        return journal.hooks.table
    trials = [(index, value) for index in problem.free for value in probe_values(problem, index, probes)]
    rollouts = journal.score_all([replaced(problem.highest, index, value) for index, value in trials], kind="probe")
    lines = []
    for (index, value), rollout in zip(trials, rollouts, strict=True):
        variable, error = problem.variables[index], float(problem.env.error_curve(index)[value])
        lines.append(Sensitivity(variable.name, variable.full, value, error, *astuple(rollout.score)))
    table = SensitivityTable(Sensitivity(FULL, 0, 0, 0.0, *astuple(full.score)), tuple(lines))
    if journal.hooks.on_table:
        journal.hooks.on_table(table)
    return table


def probe_values(problem: Problem, index: int, probes: Sequence[float]) -> Values:
    """Return a variable's allowed values nearest to the probes' shares, increasing, without the largest."""
    variable = problem.variables[index]
    near = {nearest_allowed(variable.allowed, share * variable.full) for share in probes}
    return tuple(sorted(near - {variable.allowed[-1]})) or variable.allowed[:1]


def loss_curves(problem: Problem, table: SensitivityTable) -> list[np.ndarray]:
    """Return, for each variable, the expected loss increase at each *allowed* value.

    A curve never rises with the value and is nowhere negative. That of a fixed variable is zero.
    """
    curves = [np.zeros(len(variable.allowed)) for variable in problem.variables]
    for index in problem.free:
        variable = problem.variables[index]
        lines = [line for line in table.lines if line.variable == variable.name]
        errors = monotone(problem.env.error_curve(index))[list(variable.allowed)]
        curves[index] = loss_curve(
            errors,
            np.array([line.error for line in lines]),
            np.array([line.divergence for line in lines]),
        )
    return curves


def loss_curve(errors: np.ndarray, measured_errors: np.ndarray, increases: np.ndarray) -> np.ndarray:
    """Return the loss increases at `errors`, through (errors[-1], 0) and the measured points made monotone.

    The curve is piecewise linear in the error. Beyond the largest measured error it has the slope of the last piece or
    of the chord, whichever is steeper.
    """
    order = np.argsort(measured_errors, kind="stable")
    knots = np.concatenate([errors[-1:], np.maximum(measured_errors[order], errors[-1])])
    heights = np.maximum.accumulate(np.concatenate([[0.0], np.maximum(increases[order], 0.0)]))
    curve = np.interp(errors, knots, heights)
    runs, rises = knots[-1] - np.array([knots[0], knots[-2]]), heights[-1] - np.array([0.0, heights[-2]])
    slope = max((rise / run for rise, run in zip(rises, runs, strict=True) if run > 1e-12), default=0.0)
    curve = curve + slope * np.maximum(errors - knots[-1], 0.0) + ERROR_WEIGHT * errors
    relative: np.ndarray = curve - curve[-1]
    return relative


def monotone(error_curve: np.ndarray) -> np.ndarray:
    """Return the least curve that never rises with the value and is nowhere below this one.

    The errors of a greedy selection may rise.
    """
    return np.maximum.accumulate(np.asarray(error_curve, dtype=float)[::-1])[::-1]
