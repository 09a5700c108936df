"""From a Distiller schedule to a policy: which channel groups its weights mean, and when they are masked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pocketprune.compat.distiller.elements import is_fine, weight_policy, weight_rules
from pocketprune.compat.distiller.instances import Masking, Pull, masking_of, pulls_of
from pocketprune.compat.distiller.periods import Period, periods_of
from pocketprune.compat.distiller.rates import check_rates
from pocketprune.compat.distiller.reading import Document, Place
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import Schedule
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule
from pocketprune.structure.channel_groups import Structure, layer_name
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import read_groups

SECTIONS = ("version", "pruners", "regularizers", "quantizers", "lr_schedulers", "extensions", "policies")
THINNERS = ("FilterRemover", "ChannelRemover", "StructureRemover")


@dataclass(frozen=True)
class Plan:
    """A schedule in this project's words.

    Attributes:
        policy: which channels are masked, and when; None without any.
        weights: which single weights are; None without any.
        pull: in which epochs the regularizers act; None without any.
        rates: the policies of the learning rate.
        last: the last epoch in which a pruner masks more.
        removal: the epoch at whose beginning the masked channels go; None where no extension says so.
        document: the file.
    """

    policy: Policy | None
    weights: SparsityPolicy | None
    pull: Period | None
    rates: tuple[Period, ...]
    last: int
    removal: int | None
    document: Document


def plan_for(document: Document, structure: Structure) -> Plan:
    """Return what a schedule means for an analysed network. A warning says which chains were completed.

    Raises:
        UserError: something in the file is not accepted, told with its line.
    """
    document.check_keys((), SECTIONS)
    if document.section(("quantizers",)):
        raise document.error(("quantizers",), "a quantizer given; a run prunes or quantizes, one after the other")
    periods = periods_of(document)
    check_rates(document)
    rules = _Rules(document, structure)
    fine: list[WeightRule] = []
    for period in periods:
        if period.kind == "pruner" and is_fine(document, period.name):
            fine += weight_rules(document, period, structure.traced.net)
        elif period.kind == "pruner":
            rules.add_masking(period)
        elif period.kind == "regularizer":
            rules.add_pulls(period)
    pulls = [period for period in periods if period.kind == "regularizer"]
    removal = _removal(document, periods)
    if fine and removal is not None:
        raise document.error(
            ("extensions",), "single weights are masked too; accepted are files of their own, the removal first"
        )
    return Plan(
        rules.policy(),
        weight_policy(fine) if fine else None,
        replace(pulls[0], start=min(p.start for p in pulls), end=max(p.end for p in pulls)) if pulls else None,
        tuple(period for period in periods if period.kind == "lr_scheduler"),
        max((period.last for period in periods if period.kind == "pruner"), default=0),
        removal,
        document,
    )


def _removal(document: Document, periods: Iterable[Period]) -> int | None:
    """Return when an extension removes what is masked."""
    for name in document.section(("extensions",)):
        place: Place = ("extensions", name)
        document.check_keys(place, ("class", "thinning_func_str", "arch", "dataset"))
        if document.get((*place, "class")) not in THINNERS:
            given = document.get((*place, "class"))
            raise document.error((*place, "class"), f"'{given}' given; {', '.join(THINNERS)} are accepted")
    epochs = [period for period in periods if period.kind == "extension"]
    first = min((period.start for period in epochs), default=None)
    late = next((p for p in periods if first is not None and p.kind == "pruner" and p.last > first), None)
    if late is not None:
        words = f"'{late.name}' prunes until epoch {late.last}, and channels are removed at {first}; a later removal"
        raise document.error(late.place, f"{words} is accepted")
    return first


class _Rules:
    """Collects what pruners and regularizers say of each channel group."""

    def __init__(self, document: Document, structure: Structure) -> None:
        self._document, self._structure = document, structure
        self._net = structure.traced.net
        self._rules: dict[str, Rule] = {}
        self._pulled: dict[str, Pull] = {}
        self._refit = False

    def add_masking(self, period: Period) -> None:
        """Take the pruner of one policy."""
        masking = masking_of(self._document, period.name, self._net)
        self._refit |= masking.refit
        found = self._groups(masking.weights, masking.places, masking.side)
        for name, group in found.items():
            rule = _rule(masking, period, name)
            if name in self._rules and self._rules[name] != rule:
                raise self._document.error(period.place, f"'{name}' is pruned by two policies; one is accepted")
            self._rules[name] = rule
            place = ("pruners", period.name, "weights")
            self._tell_of_members(place, group, masking.weights, masking.side, masking.aggregate == "leader")

    def add_pulls(self, period: Period) -> None:
        """Take the regularizer of one policy."""
        for pull in pulls_of(self._document, period.name, self._net):
            for name in self._groups((pull.weight,), (pull.place,), pull.side):
                other = self._pulled.setdefault(name, pull)
                if (other.regulariser, other.strength) != (pull.regulariser, pull.strength):
                    raise self._document.error(pull.place, f"'{name}' is pulled by two strengths; one is accepted")

    def policy(self) -> Policy | None:
        """Return one rule for all groups that are treated alike."""
        none = Rule(schedule=Schedule(name="one_shot", target=0.0))
        alike: dict[Rule, list[str]] = {}
        for name in [g.name for g in self._structure.groups if g.name in {*self._rules, *self._pulled}]:
            rule, pull = self._rules.get(name, none), self._pulled.get(name)
            if pull is not None:
                rule = replace(rule, regulariser=pull.regulariser, strength=pull.strength)
                rule = rule if name in self._rules else replace(rule, side=pull.side)
            alike.setdefault(replace(rule, groups=("*",)), []).append(name)
        rules = tuple(replace(rule, groups=tuple(names)) for rule, names in alike.items())
        return Policy(rules=rules, refit=self._refit) if rules else None

    def _groups(self, weights: tuple[str, ...], places: tuple[Place, ...], side: str) -> dict[str, ChannelGroup]:
        """Return the groups that weights write or read, by name."""
        found: dict[str, ChannelGroup] = {}
        for weight, place in zip(weights, places, strict=True):
            groups = self._touched(weight, side)
            stays = next((group for group in groups if not group.prunable), None)
            if not groups or stays is not None:
                why = stays.reason if stays is not None else "it reads the network's input or no channels"
                raise self._document.error(place, f"'{weight}' cannot lose {side}: {why}")
            found |= {group.name: group for group in groups}
        return found

    def _touched(self, weight: str, side: str) -> list[ChannelGroup]:
        layers = [layer for layer in self._structure.contractions if layer.weight == weight]
        if side == "channels":
            return [group for layer in layers for group in read_groups(self._structure, layer)]
        names = {layer_name(layer) for layer in layers}
        return [group for group in self._structure.groups if names & set(group.producers)]

    def _tell_of_members(
        self, place: Place, group: ChannelGroup, weights: Sequence[str], side: str, leads: bool
    ) -> None:
        members = group.producers if side == "filters" else group.consumers
        listed = {weight.removesuffix(".weight") for weight in weights}
        missing = [name for name in members if name not in listed]
        words = "write the same channels" if side == "filters" else "read the same channels"
        if missing:
            self._warn(place, f"completed by {', '.join(missing)}, which {words}")
        first = next(weight.removesuffix(".weight") for weight in weights)
        if leads and first in members and first != members[0]:
            self._warn(place, f"{members[0]} leads, the first in forward order, not {first}")

    def _warn(self, place: Place, words: str) -> None:
        warnings.warn(self._document.error(place, words).message, stacklevel=6)


def _rule(masking: Masking, period: Period, name: str) -> Rule:
    schedule = Schedule(
        name="agp" if masking.gradual else "one_shot",
        init=masking.init if masking.gradual else 0.0,
        target=masking.target,
        start=period.start,
        steps=max(1, period.end - period.start),
        frequency=period.frequency,
        freeze=period.last,
    )
    return Rule(
        groups=(name,),
        criterion=masking.criterion,
        side=masking.side,
        aggregate=masking.aggregate,
        schedule=schedule,
    )
