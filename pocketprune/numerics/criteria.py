"""Criteria: which channels of a group matter most.

A criterion is a function of the evidence on a channel group. It returns either one score per channel (c,), where a
higher score means that the channel is kept longer, or a selection path, which holds the kept channels for every count.
To add a criterion, write one function and put one line into ``CRITERIA``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.numerics.elimination import elimination_path
from pocketprune.numerics.evidence import ConsumerSlice, Evidence
from pocketprune.numerics.lasso import LassoPath, channel_gram
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.paths import RankedPath, SelectionPath

Criterion = Callable[[Evidence], Tensor | SelectionPath]
Member = TypeVar("Member")


class AbsentPartError(ValueError):
    """A part of the evidence that a criterion needs is not there; the message is the part's name."""


def kept_channels(criterion: str, evidence: Evidence, count: int) -> Tensor:
    """Return the ``count`` channels that a criterion keeps.

    Args:
        criterion: a key of ``CRITERIA``.
        evidence: what is known of the channels.
        count: how many channels stay, 0 ... c.

    Returns:
        A sorted LongTensor (count,). It is on the device of what the criterion reads.

    Raises:
        UserError: the criterion is unknown, or the evidence lacks a part that it needs.
        ValueError: the count lies outside 0 ... c, or the evidence holds NaN or infinite values.
    """
    return path(criterion, evidence).kept(count)


def path(criterion: str, evidence: Evidence) -> SelectionPath:
    """Return the kept channels for every count. Channels of equal score are kept in order of their index.

    Args and errors are those of ``kept_channels``.
    """
    found = evaluate(criterion, evidence)
    if isinstance(found, Tensor):
        return RankedPath(found.argsort(descending=True, stable=True).flip(0))
    return found


def evaluate(criterion: str, evidence: Evidence) -> Tensor | SelectionPath:
    """Return a criterion's scores (c,), or its path if it has no scores.

    Args and errors are those of ``kept_channels``.
    """
    if criterion not in CRITERIA:
        raise UserError(f"'{criterion}' given{nearest(criterion, CRITERIA)}", argument="criterion")
    try:
        found = CRITERIA[criterion](evidence)
    except AbsentPartError as part:
        raise UserError(f"'{criterion}' needs {part}, which are not given", argument="criterion") from None
    if isinstance(found, Tensor):
        if found.shape != (evidence.channels,):
            raise ValueError(
                f"'{criterion}' gives scores of shape {tuple(found.shape)} to {evidence.channels} channels"
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"'{criterion}' gives scores that are NaN or infinite")
    return found


def lasso(evidence: Evidence) -> SelectionPath:
    """Select by the Lasso over channels (He, Zhang, Sun 2017)."""
    grams = [channel_gram(m.A, m.B, c.weight, c.block, c.output_weight) for c, m in _measured(evidence)]
    return LassoPath(_sum([G for G, _ in grams]), _sum([g for _, g in grams]))


def obs(evidence: Evidence) -> SelectionPath:
    """Select by backward elimination with an exact refit (optimal brain surgeon)."""
    consumers = _measured(evidence)
    return elimination_path(
        [m for _, m in consumers],
        [c.weight for c, _ in consumers],
        [c.block for c, _ in consumers],
        output_weights=[c.output_weight for c, _ in consumers],
        ridge=evidence.ridge,
    )


def magnitude(evidence: Evidence) -> Tensor:
    """Score by the sum of |w| over the consumers' weights that read the channel."""
    consumers = _members(evidence.consumers, "consumers")
    rows = [c.weight.detach().double().abs().sum(1).view(-1, c.block) for c in consumers]
    return _aggregated(evidence, [row.sum(1) for row in rows])


def random(evidence: Evidence) -> Tensor:
    """Score by a random order of the channels, drawn from the evidence's generator."""
    return -torch.randperm(evidence.channels, generator=evidence.generator).argsort()


def l1(evidence: Evidence) -> Tensor:
    """Score by the L1 norm of the channel's filter."""
    return _aggregated(evidence, [rows.abs().sum(1) for rows in _filters(evidence)])


def l2(evidence: Evidence) -> Tensor:
    """Score by the L2 norm of the channel's filter."""
    return _aggregated(evidence, [rows.square().sum(1).sqrt() for rows in _filters(evidence)])


def geometric_median(evidence: Evidence) -> Tensor:
    """Score by the sum of the L2 distances from the channel's filter to all others (He et al. 2019, FPGM)."""
    exact = "donot_use_mm_for_euclid_dist"  # equal filters then have distance zero, and their scores tie
    return _aggregated(evidence, [torch.cdist(rows, rows, compute_mode=exact).sum(1) for rows in _filters(evidence)])


def bn_scale(evidence: Evidence) -> Tensor:
    """Score by the absolute scale of the batch norm (Liu et al. 2017, network slimming)."""
    scales = _members(evidence.norm_scales, "norm_scales")
    return _aggregated(evidence, [scale.detach().double().abs() for scale in scales])


def apoz(evidence: Evidence) -> Tensor:
    """Score by the share of activations that are not zero: 1 - APoZ (Hu et al. 2016)."""
    statistics = _members(evidence.activations, "activations")
    return _aggregated(evidence, [1 - s.zeros / s.count for s in statistics])


def mean_activation(evidence: Evidence) -> Tensor:
    """Score by the mean of the channel's activations."""
    statistics = _members(evidence.activations, "activations")
    return _aggregated(evidence, [s.total / s.count for s in statistics])


def taylor(evidence: Evidence) -> Tensor:
    """Score by sum_s (g_s w_s)^2 over the channel's weights, summed over batches (Molchanov et al. 2019)."""
    return _aggregated(evidence, [g.squares for g in _members(evidence.gradients, "gradients")])


def gradient(evidence: Evidence) -> Tensor:
    """Score by |sum_s g_s w_s|, all batches in one sum: what removing the channel costs to first order."""
    return _aggregated(evidence, [g.products.abs() for g in _members(evidence.gradients, "gradients")])


def fisher(evidence: Evidence) -> Tensor:
    """Score by (sum_s g_s w_s)^2, summed over batches: the Fisher diagonal of the channels' masks (Theis et al. 2018).

    The gradient with respect to a mask at one is sum_s g_s w_s. One batch stands for one sample.
    """
    return _aggregated(evidence, [g.squared_products for g in _members(evidence.gradients, "gradients")])


CONSUMER_CRITERIA: dict[str, Criterion] = {
    "lasso": lasso,
    "obs": obs,
    "magnitude": magnitude,
    "random": random,
}
"""The criteria that read the consumers and nothing else."""

CRITERIA: dict[str, Criterion] = {
    **CONSUMER_CRITERIA,
    "l1": l1,
    "l2": l2,
    "geometric_median": geometric_median,
    "bn_scale": bn_scale,
    "apoz": apoz,
    "mean_activation": mean_activation,
    "taylor": taylor,
    "gradient": gradient,
    "fisher": fisher,
}


def _sum(scores: Sequence[Tensor]) -> Tensor:
    return reduce(operator.add, scores)


def _leader(scores: Sequence[Tensor]) -> Tensor:
    return scores[0]


def _mean(scores: Sequence[Tensor]) -> Tensor:
    return _sum(scores) / len(scores)


def _max(scores: Sequence[Tensor]) -> Tensor:
    return reduce(torch.maximum, scores)


AGGREGATES: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "sum": _sum,
    "leader": _leader,
    "mean": _mean,
    "max": _max,
}
"""How the scores (c,) of a group's members become the group's; the first member is the leader."""


def unit_norm(filters: Tensor) -> Tensor:
    """Return filters divided by the L2 norm of all of them, so that scores compare between layers (NNCF's ranking)."""
    norm: Tensor = torch.linalg.vector_norm(filters)
    return filters / norm.clamp_min(torch.finfo(norm.dtype).tiny)


def _aggregated(evidence: Evidence, scores: Sequence[Tensor]) -> Tensor:
    if evidence.aggregate not in AGGREGATES:
        raise UserError(f"'{evidence.aggregate}' given{nearest(evidence.aggregate, AGGREGATES)}", argument="aggregate")
    return AGGREGATES[evidence.aggregate](scores)


def _members(part: Sequence[Member], name: str) -> Sequence[Member]:
    if not part:
        raise AbsentPartError(name)
    return part


def _measured(evidence: Evidence) -> list[tuple[ConsumerSlice, Moments]]:
    """Return the consumers with their moments."""
    consumers = _members(evidence.consumers, "consumers")
    measured = [(c, c.moments) for c in consumers if c.moments is not None]
    if len(measured) < len(consumers):
        raise AbsentPartError("the consumers' moments")
    return measured


def _filters(evidence: Evidence) -> list[Tensor]:
    """Return the producers' filters as float64 rows (c, values)."""
    filters = _members(evidence.filters, "filters")
    return [f.detach().double().reshape(evidence.channels, -1) for f in filters]
