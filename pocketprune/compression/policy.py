"""Policies: which channel groups are masked, by what criterion, how far and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, NOT_NEGATIVE, check_options, option
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

    Raises:
        UserError: a value that is not accepted.
    """

    groups: tuple[str, ...] = option(
        ("*",), "patterns of layer names, with wildcards; a group is meant if one of the layers that write it is"
    )
    criterion: str = option("l1", f"what scores channels: {', '.join(PARTS)}", accept=tuple(PARTS))
    side: str = option(
        "filters", "the weights that are scored: filters (write a channel) or channels (read it)", accept=SIDES
    )
    aggregate: str = option(
        "sum",
        "how the scores of several members of a channel group become one: sum, leader (the first decides), mean or max",
        accept=tuple(AGGREGATES),
    )
    ranking: str = option(
        "group",
        "group (every group loses the same share), global (the lowest scores of all groups go) or learned (global, "
        "each group's scores with a scale and a shift found by evolution)",
        accept=RANKINGS,
    )
    normalise: str = option(
        "mean",
        "how scores compare between groups in a global ranking: divided by their mean or max, the weights divided by "
        "their L2 norm before (norm, as NNCF), or as they are (none)",
        accept=NORMALISATIONS,
    )
    share_of: str = option(
        "channels",
        "what the level is a share of: the rule's channels, or the network's macs, params (parameters) or latency",
        accept=SHARES,
    )
    meet: str = option(
        "nearest",
        "how a level that is a share of a cost is met: nearest (from either side) or below (by the first cut that "
        "costs less than what is to be left, as NNCF)",
        accept=MEETINGS,
    )
    schedule: Schedule = field(default_factory=Schedule)
    regulariser: str = option(
        "none",
        "what makes channels small meanwhile: none, bn_scale (L1 on batch-norm scales), group_lasso or l1",
        accept=("none", *REGULARISERS),
    )
    strength: float = option(1e-4, "what the regulariser is multiplied by", accept=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _patterns("groups", self.groups))
        if not self.groups:
            raise UserError("none given; at least one pattern is needed", argument="groups")
        check_options(self)
        if not isinstance(self.schedule, Schedule):
            raise UserError(f"{self.schedule!r} given; a Schedule is accepted", argument="schedule")
        if self.ranking != "group" and self.criterion in ("lasso", "obs"):
            raise UserError(
                f"'{self.ranking}' given with '{self.criterion}', which has no scores; 'group' is accepted",
                argument="ranking",
            )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What compression while training is to do. The first rule that means a group takes it.

    Raises:
        UserError: a value that is not accepted.
    """

    rules: tuple[Rule, ...] = field(default_factory=lambda: (Rule(),))
    ignore: tuple[str, ...] = option((), "patterns of layer names, or module types, whose groups are left alone")
    mask: str = option(
        "soft", "soft (the filters live on, and channels may come back until the masks freeze) or hard", accept=KINDS
    )
    multiple: int = option(1, "keep multiples of this many channels", accept=COUNT)
    floor: float = option(
        0.1,
        "share of each group that stays at least where groups are ranked together or a cost is to be met",
        accept=FRACTION,
    )
    refit: bool = option(False, "each time masks change, refit the layers in closed form to what they put out before")
    attention: str = option("heads", "heads or widths, as in `find_channel_groups`", accept=ATTENTION)
    allow_inexact: bool = option(
        False, "also mask channels that a layer or group norm mixes; what is left is then normalised otherwise"
    )
    seed: int = option(0, "of random scores", accept=COUNT_OR_ZERO)

    def __post_init__(self) -> None:
        if not isinstance(self.rules, (tuple, list)) or not all(isinstance(rule, Rule) for rule in self.rules):
            raise UserError(f"{self.rules!r} given; a list of Rules is accepted", argument="rules")
        object.__setattr__(self, "rules", tuple(self.rules))
        object.__setattr__(self, "ignore", _patterns("ignore", self.ignore))
        if not self.rules:
            raise UserError("none given; at least one is needed", argument="rules")
        check_options(self)
        for name in ("refit", "allow_inexact"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{getattr(self, name)!r} given; True and False are accepted", argument=name)

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


def _patterns(name: str, given: Any) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) else given
    if not isinstance(listed, (tuple, list)) or not all(isinstance(item, str) for item in listed):
        raise UserError(f"{given!r} given; a list of names, with wildcards or not, is accepted", argument=name)
    return tuple(listed)


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
