"""Policies: which channel groups are masked, by what criterion, how far and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compression.masks import KINDS
from pocketprune.compression.questions import PARTS
from pocketprune.compression.regularisers import REGULARISERS
from pocketprune.compression.schedules import Schedule
from pocketprune.numerics.criteria import AGGREGATES
from pocketprune.structure.channel_groups import ATTENTION

SIDES = ("filters", "channels")
RANKINGS = ("group", "global", "learned")
NORMALISATIONS = ("mean", "max", "norm", "none")
SHARES = ("channels", "macs", "params", "latency")
MEETINGS = ("nearest", "below")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to some channel groups.

    Attributes:
        groups: patterns of layer names, with wildcards. A group is meant if one of the layers that write it is.
        criterion: what scores channels, a key of `pocketprune.numerics.criteria.CRITERIA`.
        side: the weights that it scores: "filters", which write a channel, or "channels", which read it.
        aggregate: how the scores of several members of a group become one: "sum", "leader", "mean" or "max".
        ranking: "group" (every group loses the same share), "global" (the lowest scores of all groups) or "learned"
            (global, with a scale and a shift of each group's scores).
        normalise: what makes scores compare between groups in a global ranking: they are divided by their mean or
            largest one, or each weight by its L2 norm before ("norm", as NNCF), or nothing is done ("none").
        share_of: what the schedule's level is a share of: the rule's "channels", or the network's "macs", "params" or
            "latency".
        meet: how a level that is a share of a cost is met: "nearest" (from either side) or "below" (by the first cut
            that costs less than what is to be left, as NNCF).
        schedule: the level over the time.
        regulariser: what makes channels small meanwhile: "none", "bn_scale", "group_lasso" or "l1".
        strength: what the regulariser is multiplied by.

    Raises:
        UserError: a value that is not accepted.
    """

    groups: tuple[str, ...] = ("*",)
    criterion: str = "l1"
    side: str = "filters"
    aggregate: str = "sum"
    ranking: str = "group"
    normalise: str = "mean"
    share_of: str = "channels"
    meet: str = "nearest"
    schedule: Schedule = field(default_factory=Schedule)
    regulariser: str = "none"
    strength: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _patterns("groups", self.groups))
        if not self.groups:
            raise UserError("none given; at least one pattern is needed", argument="groups")
        _check_word("criterion", self.criterion, PARTS)
        _check_word("side", self.side, SIDES)
        _check_word("aggregate", self.aggregate, AGGREGATES)
        _check_word("ranking", self.ranking, RANKINGS)
        _check_word("normalise", self.normalise, NORMALISATIONS)
        _check_word("share_of", self.share_of, SHARES)
        _check_word("meet", self.meet, MEETINGS)
        _check_word("regulariser", self.regulariser, ("none", *REGULARISERS))
        _check_real("strength", self.strength, 0, float("inf"))
        if self.ranking != "group" and self.criterion in ("lasso", "obs"):
            raise UserError(
                f"'{self.ranking}' given with '{self.criterion}', which has no scores; 'group' is accepted",
                argument="ranking",
            )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What compression while training is to do.

    Attributes:
        rules: the first one that means a group takes it.
        ignore: patterns of layer names, or names of module types, whose groups are left alone.
        mask: "soft" (the filters live on, and channels may come back until the schedule freezes) or "hard".
        multiple: counts of kept channels are multiples of it.
        floor: the share of each group that stays at least where groups are ranked together or a cost is to be met.
        refit: whether, each time masks change, the layers are refitted in closed form to what they put out before.
        attention: "heads" or "widths", as in `find_channel_groups`.
        seed: of random scores.

    Raises:
        UserError: a value that is not accepted.
    """

    rules: tuple[Rule, ...] = field(default_factory=lambda: (Rule(),))
    ignore: tuple[str, ...] = ()
    mask: str = "soft"
    multiple: int = 1
    floor: float = 0.1
    refit: bool = False
    attention: str = "heads"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        object.__setattr__(self, "ignore", _patterns("ignore", self.ignore))
        if not self.rules:
            raise UserError("none given; at least one is needed", argument="rules")
        _check_word("mask", self.mask, KINDS)
        _check_word("attention", self.attention, ATTENTION)
        _check_real("floor", self.floor, 0, 1)
        if not isinstance(self.refit, bool):
            raise UserError(f"{self.refit!r} given; True and False are accepted", argument="refit")
        for name, least in (("multiple", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
                raise UserError(f"{value!r} given; a whole number, {least} or more, is accepted", argument=name)

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as dicts, lists and plain values, as a file may hold it."""
        plain: dict[str, Any] = _as_lists(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Policy:
        """Return the policy that a file describes.

        Args:
            given: the attributes, those of a single rule among them or a list of `rules`. The schedule's attributes
                stand under `schedule`, or only its name. A rule may say `channels`, `macs`, `params` or `latency`
                with a level, in place of `share_of` and the schedule's target.

        Raises:
            UserError: an unknown name, two targets, or a value that is not accepted.
        """
        _check_keys(given, {*_names(cls), *_names(Rule), *SHARES}, "policy")
        own = {name: value for name, value in given.items() if name in _names(cls)}
        flat = {name: value for name, value in given.items() if name not in own}
        if flat and "rules" in own:
            raise UserError(f"given beside '{next(iter(flat))}', which belongs into a rule", argument="rules")
        listed = own.get("rules", [flat])
        if not isinstance(listed, (list, tuple)):
            raise UserError(f"{type(listed).__name__} given; a list of rules is accepted", argument="rules")
        return cls(**{**own, "rules": tuple(_rule(rule) for rule in listed)})


def _rule(given: Any) -> Rule:
    if isinstance(given, Rule):
        return given
    _check_keys(given, {*_names(Rule), *SHARES}, "rules")
    targets = [name for name in SHARES if name in given]
    if len(targets) + ("share_of" in given and bool(targets)) > 1:
        both = [*targets, *(["share_of"] if "share_of" in given else [])]
        raise UserError(f"{' and '.join(both)} given; one target is accepted", argument="rules")
    values = {name: value for name, value in given.items() if name not in SHARES}
    schedule = values.pop("schedule", {})
    settings = {"name": schedule} if isinstance(schedule, str) else schedule
    if targets:
        _check_keys(settings, _names(Schedule), "schedule")
        if "target" in settings:
            raise UserError(f"{targets[0]} and the schedule's target given; one is accepted", argument="rules")
        values["share_of"], settings = targets[0], {**settings, "target": given[targets[0]]}
    return Rule(**values, schedule=_schedule(settings))


def _schedule(given: Any) -> Schedule:
    if isinstance(given, Schedule):
        return given
    _check_keys(given, _names(Schedule), "schedule")
    settings: dict[str, Any] = dict(given)
    try:
        settings["milestones"] = tuple((time, level) for time, level in settings.get("milestones", ()))
    except (TypeError, ValueError):
        shown = settings["milestones"]
        raise UserError(f"{shown!r} given; a list of [time, level] is accepted", argument="milestones") from None
    return Schedule(**settings)


def _names(kind: Any) -> list[str]:
    return [item.name for item in fields(kind)]


def _check_keys(given: Any, known: Iterable[str], argument: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{type(given).__name__} given; names with values are accepted", argument=argument)
    known = sorted(known)
    unknown = next((str(name) for name in given if name not in known), None)
    if unknown is not None:
        raise UserError(f"'{unknown}' given{nearest(unknown, known)}", argument=argument)


def _check_word(name: str, value: Any, accepted: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise UserError(f"{value!r} given{nearest(str(value), accepted)}", argument=name)


def _check_real(name: str, value: Any, least: float, below: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) < below:
        raise UserError(f"{value!r} given; a number in [{least:g}, {below:g}) is accepted", argument=name)


def _patterns(name: str, given: Any) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) else given
    if not isinstance(listed, (tuple, list)) or not all(isinstance(item, str) for item in listed):
        raise UserError(f"{given!r} given; a list of names, with wildcards or not, is accepted", argument=name)
    return tuple(listed)


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
