"""Policies for single weights: which layers' weights are masked, in what pattern, how far and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.common.options import POSITIVE, check_option
from pocketprune.compression.schedules import Schedule
from pocketprune.numerics.weight_patterns import UNSTRUCTURED, Pattern

CRITERIA = ("magnitude", "obs", "random")
RANKINGS = ("local", "global", "sensitivity", "splicing")
THRESHOLDS = ("sensitivity", "splicing")  # the rankings without counts
KINDS = ("hard", "soft", "live")


@dataclass(frozen=True, kw_only=True)
class WeightRule:
    """What happens to the weights of some layers.

    Attributes:
        layers: patterns of layer names, with wildcards.
        pattern: what is masked together: "unstructured", blocks such as "4x1" (outputs x inputs), or n:m such as "2:4".
        criterion: what is masked first: the least "magnitude"; "obs", what costs the layer's output least once the
            others are refitted in closed form, which they then are; or "random".
        ranking: "local" (every layer loses the same share), "global" (the least weights of all these layers) or
            "sensitivity" (weights below `sensitivity` standard deviations of their layer), or "splicing": below `low`
            times a threshold weights are masked, from `high` times it on they come back, and between they stay as
            they are. It is the mean of the layer's magnitudes plus `sensitivity` of their standard deviations.
        sensitivity: s; it grows to this number as the schedule's level grows to its target. The deviations are those
            of the layer when it was first masked.
        low, high: of splicing.
        schedule: the level, the share of these layers' weights that is masked, over the time.

    Raises:
        UserError: a value that is not accepted.
    """

    layers: tuple[str, ...] = ("*",)
    pattern: str = UNSTRUCTURED
    criterion: str = "magnitude"
    ranking: str = "local"
    sensitivity: float = 1.0
    low: float = 0.9
    high: float = 1.1
    schedule: Schedule = field(default_factory=lambda: Schedule(name="one_shot"))

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", names("layers", self.layers))
        shape = Pattern.parse(self.pattern)
        check_option("criterion", self.criterion, CRITERIA)
        check_option("ranking", self.ranking, RANKINGS)
        for name in ("sensitivity", "low", "high"):
            check_option(name, getattr(self, name), POSITIVE)
        if self.low > self.high:
            raise UserError(f"{self.low:g} given; it must not be above high, {self.high:g}", argument="low")
        if self.schedule.largest > shape.largest_level:
            raise UserError(
                f"{self.schedule.largest:g} given; {self.pattern} masks at most {shape.largest_level:g}",
                argument="target",
            )
        if self.ranking in THRESHOLDS and (self.pattern != UNSTRUCTURED or self.criterion != "magnitude"):
            raise UserError(
                f"'{self.ranking}' given; it is a threshold for the magnitude of single weights", argument="ranking"
            )

    @property
    def shape(self) -> Pattern:
        """The pattern as numbers."""
        return Pattern.parse(self.pattern)


@dataclass(frozen=True, kw_only=True)
class SparsityPolicy:
    """What masks on single weights are to do.

    Attributes:
        rules: the first one that means a layer takes it.
        ignore: patterns of layer names, or names of module types, whose weights are left alone.
        mask: "hard" (masked weights are erased, for good), "soft" (they keep their numbers, and may come back when
            masks are chosen anew) or "live" (they are also trained on, as if they were not masked).
        seed: of random masks.

    Raises:
        UserError: a value that is not accepted.
    """

    rules: tuple[WeightRule, ...] = field(default_factory=lambda: (WeightRule(),))
    ignore: tuple[str, ...] = ()
    mask: str = "hard"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        object.__setattr__(self, "ignore", names("ignore", self.ignore))
        if not self.rules:
            raise UserError("none given; at least one is needed", argument="rules")
        check_option("mask", self.mask, KINDS)
        if self.mask != "live" and any(rule.ranking == "splicing" for rule in self.rules):
            raise UserError(f"'{self.mask}' given; splicing needs 'live': hidden weights grow back", argument="mask")

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as dicts, lists and plain values, as a file may hold it."""
        plain: dict[str, Any] = _as_lists(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> SparsityPolicy:
        """Return the policy that a file describes.

        Args:
            given: the attributes, those of a single rule among them or a list of `rules`. The schedule's attributes
                stand under `schedule`, or only its name. A rule may say `level` in place of the schedule's target.

        Raises:
            UserError: an unknown name, or a value that is not accepted.
        """
        own_names, rule_names = _names(cls), [*_names(WeightRule), "level"]
        _check_keys(given, [*own_names, *rule_names], "policy")
        own = {name: value for name, value in given.items() if name in own_names}
        flat = {name: value for name, value in given.items() if name in rule_names}
        if flat and "rules" in own:
            raise UserError(f"given beside '{next(iter(flat))}', which belongs into a rule", argument="rules")
        listed = own.get("rules", [flat])
        if not isinstance(listed, (list, tuple)):
            raise UserError(f"{type(listed).__name__} given; a list of rules is accepted", argument="rules")
        return cls(**{**own, "rules": tuple(map(_rule, listed))})


def _rule(given: Any) -> WeightRule:
    if isinstance(given, WeightRule):
        return given
    _check_keys(given, [*_names(WeightRule), "level"], "rules")
    values = {name: value for name, value in given.items() if name not in ("level", "schedule")}
    schedule = given.get("schedule", {"name": "one_shot"})
    if not isinstance(schedule, Schedule):
        settings = {"name": schedule} if isinstance(schedule, str) else dict(schedule)
        _check_keys(settings, _names(Schedule), "schedule")
        if "level" in given:
            settings["target"] = given["level"]
        settings["milestones"] = tuple(map(tuple, settings.get("milestones", ())))
        schedule = Schedule(**settings)
    return WeightRule(**values, schedule=schedule)


def names(argument: str, given: Any) -> tuple[str, ...]:
    """Return names that a person gave, one or a list of them, as a tuple.

    Raises:
        UserError: something else was given.
    """
    listed = (given,) if isinstance(given, str) else given
    if not isinstance(listed, (tuple, list)) or not all(isinstance(item, str) for item in listed):
        raise UserError(f"{given!r} given; a list of names, with wildcards or not, is accepted", argument=argument)
    return tuple(listed)


def _names(kind: Any) -> list[str]:
    return [item.name for item in fields(kind)]


def _check_keys(given: Any, known: list[str], argument: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{type(given).__name__} given; names with values are accepted", argument=argument)
    unknown = next((str(name) for name in given if name not in known), None)
    if unknown is not None:
        raise UserError(f"'{unknown}' given{nearest(unknown, sorted(known))}", argument=argument)


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
