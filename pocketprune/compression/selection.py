"""Selection: the channels that a rule masks at a level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.compression.costs import Cost
from pocketprune.compression.policy import Rule
from pocketprune.compression.ranking import (
    Order,
    common_levels,
    entries_below_cost,
    entries_for_channels,
    entries_for_cost,
    entries_for_share,
    global_order,
    kept_of,
    lower_counts,
    uniform_order,
)
from pocketprune.compression.scopes import Scope
from pocketprune.numerics.criteria import evaluate, path
from pocketprune.numerics.evidence import Evidence


@dataclass(frozen=True)
class Limits:
    """What bounds a selection.

    Attributes:
        multiple, floor: as in a policy.
        cost: of kept counts by group name, if the level is a share of one.
        others: kept counts of the groups of other rules.
        coefficients: group name -> (scale, shift) of its scores, for a learned ranking.
    """

    multiple: int = 1
    floor: float = 0.0
    cost: Cost | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    coefficients: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def choose(
    scope: Scope, level: float, evidence: Sequence[Evidence], gone: Sequence[Tensor], limits: Limits
) -> dict[str, Tensor]:
    """Return for each group of a scope the channels to mask, a boolean (c,).

    Args:
        scope: the rule with its groups.
        level: the share to mask.
        evidence: on each group.
        gone: for each group a boolean (c,) of channels that are masked for good.
        limits: see `Limits`.

    Raises:
        UserError: the level cannot be reached.
    """
    sizes = [group.size for group in scope.groups]
    order = _order(scope, evidence, gone, limits)
    counts = order.kept(_entries(scope, order, level, limits))
    masked = {}
    for group, size, count, known, lost in zip(scope.groups, sizes, counts, evidence, gone, strict=True):
        kept = kept_of(path(scope.rule.criterion, known), count, lost)
        masked[group.name] = torch.ones(size, dtype=torch.bool)
        masked[group.name][kept] = False
    return masked


def check_reachable(scope: Scope, level: float, limits: Limits) -> None:
    """Check that a rule's groups can lose enough for a level.

    Raises:
        UserError: they cannot; the message states what can be reached.
    """
    order = uniform_order([group.size for group in scope.groups], limits.multiple, _floor(scope.rule, limits))
    _entries(scope, order, level, limits)


def check_multiple(scope: Scope, limits: Limits) -> None:
    """Check that at least one of a rule's groups can lose channels in multiples.

    Raises:
        UserError: none is wide enough.
    """
    if limits.multiple == 1 or any(lower_counts(group.size, limits.multiple) for group in scope.groups):
        return
    widest = max(group.size for group in scope.groups)
    raise UserError(
        f"{limits.multiple} given, and no group of the rule can lose channels; the widest has {widest}",
        argument="multiple",
    )


def reachable(scope: Scope, limits: Limits) -> float:
    """Return the highest level that a rule's groups can be brought to."""
    order = uniform_order([group.size for group in scope.groups], limits.multiple, _floor(scope.rule, limits))
    counts = order.kept(len(order.groups))
    if scope.rule.share_of == "channels":
        return 1 - sum(counts) / sum(order.sizes)
    assert limits.cost is not None, "a rule with a cost comes with its function"
    own = {group.name: count for group, count in zip(scope.groups, counts, strict=True)}
    return 1 - limits.cost({**limits.others, **own}) / limits.cost({})


def _order(scope: Scope, evidence: Sequence[Evidence], gone: Sequence[Tensor], limits: Limits) -> Order:
    rule, floor = scope.rule, _floor(scope.rule, limits)
    if rule.ranking == "group":
        return uniform_order([group.size for group in scope.groups], limits.multiple, floor)
    scores = []
    for group, known, lost in zip(scope.groups, evidence, gone, strict=True):
        scale, shift = limits.coefficients.get(group.name, (1.0, 0.0))
        own = scale * normalised_scores(rule, known) + shift
        scores.append(torch.where(lost.to(own.device), float("-inf"), own))
    return global_order(scores, limits.multiple, floor)


def normalised_scores(rule: Rule, evidence: Evidence) -> Tensor:
    """Return the scores (c,) of a group's channels, made to compare with those of other groups."""
    scores = evaluate(rule.criterion, evidence)
    assert isinstance(scores, Tensor), "a rule refuses criteria without scores here"
    return NORMALISATIONS[rule.normalise](scores.double())


def _floor(rule: Rule, limits: Limits) -> float:
    """A level that is a share of each group's channels says itself how many stay."""
    return 0.0 if rule.share_of == "channels" and rule.ranking == "group" else limits.floor


def _entries(scope: Scope, order: Order, level: float, limits: Limits) -> int:
    if scope.rule.share_of == "channels":
        count = entries_for_share if scope.rule.ranking == "group" else entries_for_channels
        return count(order, level)
    cost = limits.cost
    assert cost is not None, "a rule with a cost comes with its function"

    def costs(counts: list[int]) -> float:
        own = {group.name: count for group, count in zip(scope.groups, counts, strict=True)}
        return cost({**limits.others, **own})

    if scope.rule.meet == "nearest":
        return entries_for_cost(order, level, costs, cost({}))
    cuts = common_levels(order) if scope.rule.ranking == "group" else range(len(order.groups) + 1)
    return entries_below_cost(order, level, costs, cost({}), cuts)


def _over_mean(scores: Tensor) -> Tensor:
    return scores / scores.abs().mean().clamp_min(torch.finfo(scores.dtype).tiny)


def _over_max(scores: Tensor) -> Tensor:
    return scores / scores.abs().max().clamp_min(torch.finfo(scores.dtype).tiny)


def _as_is(scores: Tensor) -> Tensor:
    return scores


NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": _over_mean,
    "max": _over_max,
    "norm": _as_is,  # the weights are divided before they are scored
    "none": _as_is,
}
"""How the scores of one group are made to compare with those of others."""
