"""Distiller's pruners of single weights as rules: levels, AGP's curve, thresholds by sensitivity, and splicing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from pocketprune.compat.distiller.instances import parameter
from pocketprune.compat.distiller.periods import Period
from pocketprune.compat.distiller.reading import Document, Place
from pocketprune.compression.schedules import Schedule
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule

GRADUAL, LEVELS, SENSITIVITY = "AutomatedGradualPruner", "SparsityLevelParameterPruner", "SensitivityPruner"
SPLICING = "SplicingPruner"
FINE = (GRADUAL, LEVELS, SENSITIVITY, SPLICING)
"""Classes of pruners that mask single weights."""

SPLICERS = ("low_thresh_mult", "hi_thresh_mult", "sensitivity_multiplier")
STEADY = 0.5  # any level: a threshold that keeps its level stays what it is


def is_fine(document: Document, name: str) -> bool:
    """Return whether a pruner masks single weights."""
    return document.get(("pruners", name, "class")) in FINE


def weight_rules(document: Document, period: Period, net: nn.Module) -> list[WeightRule]:
    """Return what the pruner of one policy does, a rule for each number that it gives.

    Raises:
        UserError: an unknown key or value, or a weight that the network does not have.
    """
    place: Place = ("pruners", period.name)
    kind = document.get((*place, "class"))
    if kind == GRADUAL:
        document.check_keys(place, ("class", "initial_sparsity", "final_sparsity", "weights"))
        first, last = (_share(document, (*place, key)) for key in ("initial_sparsity", "final_sparsity"))
        if not first < last:
            words = f"{last} given; it must be above initial_sparsity, {first}"
            raise document.error((*place, "final_sparsity"), words)
        listed = document.get((*place, "weights"))
        if not isinstance(listed, list) or not listed:
            raise document.error((*place, "weights"), "a list of parameter names is accepted")
        layers = tuple(
            _layer(document, (*place, "weights", number), str(name), net) for number, name in enumerate(listed)
        )
        return [WeightRule(layers=layers, schedule=_schedule(period, "agp", first, last))]
    key = "levels" if kind == LEVELS else "sensitivities"
    document.check_keys(place, ("class", key, *(SPLICERS if kind == SPLICING else ())))
    rule = _spliced if kind == SPLICING else _rule
    return [rule(document, (*place, key, name), period, net) for name in _named_first(document.section((*place, key)))]


def weight_policy(rules: Sequence[WeightRule]) -> SparsityPolicy:
    """Return the policy of all rules; what is spliced back must have been trained meanwhile."""
    spliced = any(rule.ranking == "splicing" for rule in rules)
    return SparsityPolicy(rules=tuple(rules), mask="live" if spliced else "hard")


def _named_first(names: Iterable[Any]) -> list[Any]:
    """Return the keys of a section, "*" last, as it means the layers without a number of their own."""
    return sorted(names, key=lambda name: name == "*")


def _rule(document: Document, place: Place, period: Period, net: nn.Module) -> WeightRule:
    if "levels" in place:
        level = _share(document, place)
        return WeightRule(layers=_layers(document, place, net), schedule=_schedule(period, "linear", level, level))
    return WeightRule(
        layers=_layers(document, place, net),
        ranking="sensitivity",
        sensitivity=_positive(document, place, "a number of standard deviations above 0"),
        schedule=_schedule(period, "linear", STEADY, STEADY),
    )


def _spliced(document: Document, place: Place, period: Period, net: nn.Module) -> WeightRule:
    """Return a rule whose sensitivity grows by a multiple of its first number with each epoch."""
    own = place[:2]
    low, high = (_positive(document, (*own, key), "a factor above 0") for key in SPLICERS[:2])
    if low > high:
        raise document.error((*own, SPLICERS[0]), f"{low:g} given; it must not be above {SPLICERS[1]}, {high:g}")
    growth = document.get((*own, SPLICERS[2]), 0)
    if isinstance(growth, bool) or not isinstance(growth, (int, float)) or growth < 0:
        raise document.error((*own, SPLICERS[2]), f"{growth!r} given; a number of 0 or more is accepted")
    last = 1 + growth * (period.last - period.start)
    return WeightRule(
        layers=_layers(document, place, net),
        ranking="splicing",
        sensitivity=last * _positive(document, place, "a number of standard deviations above 0"),
        low=low,
        high=high,
        schedule=_schedule(period, "linear", STEADY / last, STEADY),
    )


def _layers(document: Document, place: Place, net: nn.Module) -> tuple[str, ...]:
    name = str(place[-1])
    return ("*",) if name == "*" else (_layer(document, place, name, net),)


def _positive(document: Document, place: Place, words: str) -> float:
    value = document.get(place)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise document.error(place, f"{value!r} given; {words} is accepted")
    return float(value)


def _schedule(period: Period, name: str, init: float, target: float) -> Schedule:
    return Schedule(
        name=name,
        init=init,
        target=target,
        start=period.start,
        steps=period.end - period.start,
        frequency=period.frequency,
        freeze=period.last,
    )


def _layer(document: Document, place: Place, name: str, net: nn.Module) -> str:
    layer = parameter(document, place, name, net).removesuffix(".weight")
    if layer not in sparse_layers(net):
        raise document.error(place, f"'{name}' is no weight of a convolution or linear layer")
    return layer


def _share(document: Document, place: Place) -> float:
    value = document.get(place)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise document.error(place, f"{value!r} given; [0, 1) accepted, so that something stays")
    return float(value)
