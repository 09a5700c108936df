"""The instances of a Distiller schedule as this project's words: pruners and regularizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from pocketprune.common.names import nearest
from pocketprune.compat.distiller.reading import Document, Place

SIDES = {"Filters": "filters", "3D": "filters", "Rows": "filters", "Channels": "channels"}
"""Group type -> the side of the weights that is scored."""

CRITERIA = {
    "L1RankedStructureParameterPruner": "l1",
    "L2RankedStructureParameterPruner": "l2",
    "ActivationAPoZRankedFilterPruner": "apoz",
    "ActivationMeanRankedFilterPruner": "mean_activation",
    "GradientRankedFilterPruner": "gradient",
    "RandomRankedFilterPruner": "random",
    "FMReconstructionChannelPruner": "l1",
}
"""Class of a pruner without its `_AGP` -> criterion."""

ELEMENTS = (
    "MagnitudeParameterPruner",
    "BaiduRNNPruner",
    "StructureParameterPruner",
    "RandomLevelStructureParameterPruner",
    "BernoulliFilterPruner",
    "BernoulliFilterPruner_AGP",
)
"""Pruners of Distiller that mask by thresholds of their own, or by chance."""

REGULARIZERS = {"L1Regularizer": "l1", "GroupLassoRegularizer": "group_lasso"}


@dataclass(frozen=True)
class Masking:
    """A ranked structure pruner.

    Attributes:
        criterion, side, aggregate: as in a rule.
        init, target: levels; without AGP the two are the same.
        gradual: whether the level rises by AGP's curve.
        refit: whether layers are refitted to what they put out.
        weights: parameter names in the network.
        places: where each of them stands in the file.
    """

    criterion: str
    side: str
    aggregate: str
    init: float
    target: float
    gradual: bool
    refit: bool
    weights: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Pull:
    """What a regularizer does to one parameter."""

    weight: str
    regulariser: str
    side: str
    strength: float
    place: Place


def masking_of(document: Document, name: str, net: nn.Module) -> Masking:
    """Return the pruner of a name.

    Raises:
        UserError: another class, an unknown key or value, or a weight that the network does not have.
    """
    place: Place = ("pruners", name)
    kind = str(document.get((*place, "class")))
    base, gradual = kind.removesuffix("_AGP"), kind.endswith("_AGP")
    if kind in ELEMENTS:
        raise document.error((*place, "class"), f"{kind} masks no ranked structures; accepted: {', '.join(CRITERIA)}")
    if base not in CRITERIA:
        known = [*CRITERIA, *(f"{each}_AGP" for each in CRITERIA)]
        raise document.error((*place, "class"), f"'{kind}' given{nearest(kind, known)}")
    shares = ["initial_sparsity", "final_sparsity"] if gradual else ["desired_sparsity"]
    document.check_keys(
        place, ("class", "group_type", "group_dependency", "weights", *shares, "magnitude_fn", "rounding_fn")
    )
    levels = [_level(document, (*place, share)) for share in shares]
    if gradual and not levels[0] < levels[1]:
        raise document.error((*place, shares[1]), f"{levels[1]} given; it must be above initial_sparsity, {levels[0]}")
    dependency = document.get((*place, "group_dependency"))
    if dependency not in (None, "Leader"):
        raise document.error((*place, "group_dependency"), f"{dependency!r} given; 'Leader' is accepted")
    weights = document.get((*place, "weights"))
    if not isinstance(weights, list) or not weights:
        raise document.error((*place, "weights"), "a list of parameter names is accepted")
    places = tuple((*place, "weights", number) for number in range(len(weights)))
    default = "Channels" if "Channel" in base else "Filters"
    return Masking(
        CRITERIA[base],
        _side(document, (*place, "group_type"), document.get((*place, "group_type"), default)),
        "leader" if dependency else "sum",
        levels[0],
        levels[-1],
        gradual,
        base == "FMReconstructionChannelPruner",
        tuple(parameter(document, each, str(weight), net) for each, weight in zip(places, weights, strict=True)),
        places,
    )


def pulls_of(document: Document, name: str, net: nn.Module) -> list[Pull]:
    """Return what the regularizer of a name does; raises are those of `masking_of`."""
    place: Place = ("regularizers", name)
    kind = str(document.get((*place, "class")))
    if kind not in REGULARIZERS:
        raise document.error((*place, "class"), f"'{kind}' given{nearest(kind, REGULARIZERS)}")
    document.check_keys(place, ("class", "reg_regims", "threshold_criteria"))
    pulls = []
    for weight, regime in document.section((*place, "reg_regims")).items():
        here: Place = (*place, "reg_regims", weight)
        strength, group = regime if isinstance(regime, list) and len(regime) == 2 else (regime, "Filters")
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or strength < 0:
            raise document.error(here, f"{regime!r} given; a strength, or [strength, group type], is accepted")
        side = _side(document, here, group)
        pulls.append(Pull(parameter(document, here, str(weight), net), REGULARIZERS[kind], side, float(strength), here))
    return pulls


def parameter(document: Document, place: Place, name: str, net: nn.Module) -> str:
    """Return the network's own name of a parameter, which may be given with data parallelism's `module.`.

    Raises:
        UserError: the network has none of the name; the nearest is named.
    """
    own = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    found = next((each for each in (name, name.removeprefix("module.")) if each in own), None)
    if found is None:
        weights = [each for each in own if each.endswith("weight")]
        raise document.error(place, f"'{name}' given{nearest(name.removeprefix('module.'), weights)}")
    return found


def _level(document: Document, place: Place) -> float:
    value = document.get(place)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise document.error(place, f"{value!r} given; [0, 1) accepted, so that something stays")
    return float(value)


def _side(document: Document, place: Place, group: Any) -> str:
    if group not in SIDES:
        raise document.error(place, f"{group!r} given{nearest(str(group), SIDES)}")
    return SIDES[group]
