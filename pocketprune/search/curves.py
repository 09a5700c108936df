"""How much each layer's loss of channels costs: a measured table, and curves for every count drawn through
it.

A few counts of every layer are scored with all other layers whole. One layer's effect on loss and accuracy drowns in
the noise of some hundreds of labels, so it is measured as the divergence from the dense network's predictions. Between
the counts the curve follows the layer's reconstruction error, which is known for every count: the divergence is
interpolated as a function of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from pocketprune.search.budget import Problem, nearest
from pocketprune.search.interface import Counts, replaced
from pocketprune.search.journal import Journal
from pocketprune.search.table import DENSE, Sensitivity, SensitivityTable

ERROR_WEIGHT = 1e-4  # keeps curves falling with the error where no loss increase was measured


def sensitivity_table(problem: Problem, probes: Sequence[float], journal: Journal) -> SensitivityTable:
    """The journal's table if it was given one that fits, else a new one, measured and handed over for another
    search."""
    dense = journal.score(problem.highest, kind="probe")
    if journal.hooks.table is not None:
        journal.hooks.table.check(problem, dense_loss=dense.loss, dense_accuracy=dense.accuracy)
        return journal.hooks.table
    trials = [(index, kept) for index in problem.free for kept in probe_counts(problem, index, probes)]
    rollouts = journal.score_all(
        [replaced(problem.highest, index, kept) for index, kept in trials],
        kind="probe",
    )
    lines = []
    for (index, kept), rollout in zip(trials, rollouts, strict=True):
        layer, error = problem.layers[index], float(problem.env.error_curve(index)[kept])
        lines.append(Sensitivity(layer.name, layer.channels, kept, error, *astuple(rollout.score)))
    table = SensitivityTable(Sensitivity(DENSE, 0, 0, 0.0, *astuple(dense.score)), tuple(lines))
    if journal.hooks.on_table:
        journal.hooks.on_table(table)
    return table


def probe_counts(problem: Problem, layer: int, probes: Sequence[float]) -> Counts:
    """The allowed counts nearest to the probes' shares, increasing, without the largest."""
    allowed, channels = problem.layers[layer].allowed, problem.layers[layer].channels
    return tuple(sorted({nearest(allowed, share * channels) for share in probes} - {allowed[-1]})) or allowed[:1]


def loss_curves(problem: Problem, table: SensitivityTable) -> list[np.ndarray]:
    """Per layer, the expected increase of the loss at each *allowed* count: never rising with the count,
    never < 0.

    Fixed layers get zeros.
    """
    curves = [np.zeros(len(layer.allowed)) for layer in problem.layers]
    for index in problem.free:
        layer = problem.layers[index]
        lines = [line for line in table.lines if line.layer == layer.name]
        errors = monotone(problem.env.error_curve(index))[list(layer.allowed)]
        curves[index] = loss_curve(
            errors,
            np.array([line.error for line in lines]),
            np.array([line.divergence for line in lines]),
        )
    return curves


def loss_curve(errors: np.ndarray, measured_errors: np.ndarray, increases: np.ndarray) -> np.ndarray:
    """Loss increases at `errors`, through (errors[-1], 0) and the measured points made monotone.

    Piecewise linear in the error; beyond the largest measured error on the steeper of the last piece and the
    chord.
    """
    order = np.argsort(measured_errors, kind="stable")
    knots = np.concatenate([errors[-1:], np.maximum(measured_errors[order], errors[-1])])
    heights = np.maximum.accumulate(np.concatenate([[0.0], np.maximum(increases[order], 0.0)]))
    curve = np.interp(errors, knots, heights)
    runs, rises = knots[-1] - np.array([knots[0], knots[-2]]), heights[-1] - np.array([0.0, heights[-2]])
    slope = max((rise / run for rise, run in zip(rises, runs, strict=True) if run > 1e-12), default=0.0)
    curve = curve + slope * np.maximum(errors - knots[-1], 0.0) + ERROR_WEIGHT * errors
    return curve - curve[-1]


def monotone(error_curve: np.ndarray) -> np.ndarray:
    """The least curve above this one that never rises with the count (greedy eliminations can wobble)."""
    return np.maximum.accumulate(np.asarray(error_curve, dtype=float)[::-1])[::-1]
