"""The planner: which channels the rules of a policy mask at their levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compression.closed_form import refitted_network, refitted_tensors
from pocketprune.compression.costs import Cost, GroupCosts
from pocketprune.compression.evidence import check, gather
from pocketprune.compression.policy import Policy
from pocketprune.compression.questions import Question, Source
from pocketprune.compression.regularisers import check_regulariser
from pocketprune.compression.scopes import Scope, scopes_of
from pocketprune.compression.selection import Limits, check_multiple, check_reachable, choose, reachable
from pocketprune.compression.statistics import GroupRow, RuleRow, Statistics
from pocketprune.compression.views import GroupViews, views_of
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.evidence import Evidence
from pocketprune.structure.channel_groups import analyse

Level = tuple[int, float]
"""The number of a rule, and its level."""

SEEDS = 1000003
"""Distance of the seeds of two groups' random scores."""


class Planner:
    """Chooses masks; it changes nothing in the network.

    Args:
        policy: what is to be done.
        source: the analysed network, and the batches.
        cost: what `share_of="latency"` means.

    Attributes:
        scopes: the rules with their groups.
        views: of each group that a rule means, by name.
        coefficients: group name -> (scale, shift) of its scores in a learned ranking.

    Raises:
        UserError: the policy cannot be carried out on the network.
    """

    def __init__(self, policy: Policy, source: Source, cost: Cost | None) -> None:
        structure = source.structure
        self._policy, self._source = policy, source
        self.scopes = scopes_of(policy, structure.groups, structure.traced.net)
        groups = [group for scope in self.scopes for group in scope.groups]
        self.views = {group.name: views_of(structure, group) for group in groups}
        self._costs = GroupCosts(structure, groups)
        self._cost_of = {"macs": self._costs.macs, "params": self._costs.params, "latency": cost}
        self.coefficients: dict[str, tuple[float, float]] = {}
        for scope in self.scopes:
            self._check(scope)
        if policy.refit and next(iter(source.each()), None) is None:
            raise UserError("none given; a policy with refit=True needs some", argument="batches")

    def _check(self, scope: Scope) -> None:
        rule = scope.rule
        if rule.share_of == "latency" and self._cost_of["latency"] is None:
            raise UserError("none given; a rule with share_of='latency' needs it", argument="cost")
        check(self._questions(scope), self._source)
        if rule.regulariser != "none":
            check_regulariser(rule.regulariser, self.views_of(scope))
        check_reachable(scope, rule.schedule.largest, self._limits(scope, {}))

    def check_multiples(self) -> None:
        """Raise UserError if the policy's multiple leaves a rule without a group that can lose channels."""
        for scope in self.scopes:
            check_multiple(scope, self._limits(scope, {}))

    def views_of(self, scope: Scope) -> list[GroupViews]:
        """Return the views of a scope's groups."""
        return [self.views[group.name] for group in scope.groups]

    def evidence(self, due: Sequence[Level]) -> dict[str, Evidence]:
        """Return the evidence on the groups of some rules, by name, from the network as it is.

        Args:
            due: the rules with their levels; no evidence is gathered for level 0.
        """
        self._follow_device()
        questions = [q for number, level in due if level > 0 for q in self._questions(self.scopes[number])]
        found = gather(questions, self._source)
        return {q.views.group.name: known for q, known in zip(questions, found, strict=True)}

    def choose(
        self, due: Sequence[Level], masked: Mapping[str, Tensor], evidence: Mapping[str, Evidence]
    ) -> dict[str, Tensor]:
        """Return for each group of some rules the channels to mask, a boolean (c,).

        Args:
            due: the rules with their levels.
            masked: what is masked at present, of all groups.
            evidence: on the groups of rules whose level is not 0.

        Raises:
            UserError: a level cannot be reached.
        """
        chosen: dict[str, Tensor] = {}
        for number, level in due:
            scope = self.scopes[number]
            gone = [self._gone(masked[group.name]) for group in scope.groups]
            if level == 0:
                chosen |= {group.name: lost for group, lost in zip(scope.groups, gone, strict=True)}
                continue
            known = [evidence[group.name] for group in scope.groups]
            chosen |= choose(scope, level, known, gone, self._limits(scope, {**masked, **chosen}))
        return chosen

    def choose_alone(self, levels: Mapping[str, float], masked: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each named group the channels to mask, a boolean (c,), at a level of its own channels.

        Raises:
            UserError: no rule means a group of that name.
        """
        unknown = next((name for name in levels if name not in self.views), None)
        if unknown is not None:
            raise UserError(f"'{unknown}' given{nearest(unknown, self.views)}", argument="levels")
        evidence = self.evidence([(number, 1.0) for number in range(len(self.scopes))])
        limits = Limits(self._policy.multiple)
        chosen: dict[str, Tensor] = {}
        for scope in self.scopes:
            rule = replace(scope.rule, ranking="group", share_of="channels")
            for group in (group for group in scope.groups if group.name in levels):
                gone = [self._gone(masked[group.name])]
                chosen |= choose(Scope(rule, (group,)), levels[group.name], [evidence[group.name]], gone, limits)
        return chosen

    def reachable(self) -> float:
        """Return the highest level that the first rule can come to."""
        return reachable(self.scopes[0], self._limits(self.scopes[0], {}))

    def refitted(self, masked: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by which the network, once these channels are masked, stays near what it is now."""
        self._follow_device()
        return refitted_tensors(self._source.structure, masked, [inputs for inputs, _ in self._source.each()])

    def refitted_without(self, masked: Mapping[str, Tensor], batches: Iterable[ExampleInputs]) -> nn.Module:
        """Return the network without these channels, refitted on batches of inputs to what it is now."""
        self._follow_device()
        inputs = list(self.inputs(batches))
        if not inputs:
            raise UserError("empty; at least one batch is needed", argument="refit")
        return refitted_network(self._source.structure, masked, inputs)

    def inputs(self, batches: Iterable[Any]) -> Iterable[Any]:
        """Return the inputs of batches, with labels or without, on the network's device."""
        self._follow_device()
        return (inputs for inputs, _ in replace(self._source, batches=batches).each())

    def statistics(self, masked: Mapping[str, Tensor], levels: Sequence[float]) -> Statistics:
        """Return what is masked, at the levels that the schedules ask for."""
        counts, costs = _counts(masked), self._costs
        rows = [
            GroupRow(g.name, g.size, counts.get(g.name, g.size), "" if g.name in counts else g.reason or "left alone")
            for g in self._source.structure.groups
        ]
        rules = [
            RuleRow(" ".join(s.rule.groups), s.rule.share_of, level, self._reached(s, counts), s.rule.schedule.final)
            for s, level in zip(self.scopes, levels, strict=True)
        ]
        left = (costs.macs(counts), costs.params(counts))
        return Statistics(tuple(rows), tuple(rules), costs.dense_macs, left[0], costs.dense_params, left[1])

    def _reached(self, scope: Scope, counts: Mapping[str, int]) -> float:
        """The share that a rule's level is of, as it is masked."""
        if scope.rule.share_of == "channels":
            return 1 - sum(counts[group.name] for group in scope.groups) / sum(group.size for group in scope.groups)
        cost = self._cost_of[scope.rule.share_of]
        assert cost is not None, "it was checked when the planner was made"
        return 1 - cost(counts) / cost({})

    def _gone(self, masked: Tensor) -> Tensor:
        """The channels that a hard mask has erased."""
        return masked if self._policy.mask == "hard" else torch.zeros_like(masked)

    def _limits(self, scope: Scope, masked: Mapping[str, Tensor]) -> Limits:
        """What bounds the selection of one rule; the masks of other rules count."""
        own = {group.name for group in scope.groups}
        others = {name: count for name, count in _counts(masked).items() if name not in own}
        cost = self._cost_of.get(scope.rule.share_of)
        return Limits(self._policy.multiple, self._policy.floor, cost, others, self.coefficients)

    def _questions(self, scope: Scope) -> list[Question]:
        rule, number = scope.rule, {name: number for number, name in enumerate(self.views)}
        return [
            Question(
                v,
                rule.criterion,
                rule.side,
                rule.aggregate,
                unit_norm=rule.normalise == "norm" and rule.ranking != "group",
                seed=self._policy.seed + SEEDS * number[v.group.name],
            )
            for v in self.views_of(scope)
        ]

    def _follow_device(self) -> None:
        """Trace again where the network was moved: the traced graph holds constants."""
        structure = self._source.structure
        device = device_of(structure.traced.net)
        leaves = [leaf for leaf in pytree.tree_leaves(structure.traced.example) if isinstance(leaf, Tensor)]
        if any(leaf.device != device for leaf in leaves):
            example = pytree.tree_map_only(Tensor, lambda t: t.to(device), structure.traced.example)
            moved = analyse(
                structure.traced.net,
                example,
                attention=structure.attention,
                allow_inexact=structure.allow_inexact,
            )
            moved.groups[:] = structure.groups
            self._source = replace(self._source, structure=moved)


def _counts(masked: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masked.items()}
