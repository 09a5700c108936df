"""Distiller's pruners of single weights as rules: levels, AGP's curve, and thresholds by sensitivity."""

from __future__ import annotations

from torch import nn

from pocketprune.compat.distiller.instances import parameter
from pocketprune.compat.distiller.periods import Period
from pocketprune.compat.distiller.reading import Document, Place
from pocketprune.compression.schedules import Schedule
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.sparsity.policy import WeightRule

GRADUAL, LEVELS, SENSITIVITY = "AutomatedGradualPruner", "SparsityLevelParameterPruner", "SensitivityPruner"
FINE = (GRADUAL, LEVELS, SENSITIVITY)
"""Classes of pruners that mask single weights."""


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
    document.check_keys(place, ("class", key))
    return [_rule(document, (*place, key, name), period, net) for name in document.section((*place, key))]


def _rule(document: Document, place: Place, period: Period, net: nn.Module) -> WeightRule:
    *_, key, name = place
    layers = ("*",) if name == "*" else (_layer(document, place, str(name), net),)
    if key == "levels":
        level = _share(document, place)
        return WeightRule(layers=layers, schedule=_schedule(period, "linear", level, level))
    value = document.get(place)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise document.error(place, f"{value!r} given; a number of standard deviations above 0 is accepted")
    steady = _schedule(period, "linear", 0.5, 0.5)  # any level: the threshold is the same in every epoch
    return WeightRule(layers=layers, ranking="sensitivity", sensitivity=float(value), schedule=steady)


def _schedule(period: Period, name: str, init: float, target: float) -> Schedule:
    return Schedule(
        name=name,
        init=init,
        target=target,
        start=period.start,
        steps=period.end - period.start,
        frequency=period.frequency,
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
