"""From what was asked for (a ratio, a list, a share of the MACs) to a kept count for every prunable layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pocketprune.common.errors import UserError
from pocketprune.numerics.ratios import kept_count
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import CostModel, decision_of
from pocketprune.structure.layers import PrunableLayer


def planned_counts(
    structure: Structure,
    layers: Sequence[PrunableLayer],
    *,
    preserve_ratio: float | None,
    ratios: Sequence[float] | None,
    macs: float | None,
    multiple: int,
) -> list[int]:
    """Kept input channels of every prunable layer; layers that cannot lose any keep all.

    Raises:
        UserError: not exactly one of the three given, a value outside (0, 1], a list of the wrong length, or a share
            of MACs that no ratio reaches.
    """
    given = [
        name
        for name, value in (("preserve_ratio", preserve_ratio), ("ratios", ratios), ("macs", macs))
        if value is not None
    ]
    if len(given) != 1:
        raise UserError(f"exactly one of preserve_ratio, ratios and macs is accepted; {len(given)} given")
    if macs is not None:
        return _counts_for_macs(structure, layers, check_ratio("macs", macs), multiple)
    if ratios is not None:
        if isinstance(ratios, str) or not hasattr(ratios, "__len__"):
            raise UserError(f"ratios: {type(ratios).__name__} given; a list of preserve ratios is accepted")
        if len(ratios) != len(layers):
            raise UserError(
                f"ratios: {len(ratios)} given; {len(layers)} are accepted, one for each of "
                f"{', '.join(layer.name for layer in layers)}"
            )
        return _counts(layers, [check_ratio(f"ratios[{i}]", r) for i, r in enumerate(ratios)], multiple)
    return _counts(layers, [check_ratio("preserve_ratio", preserve_ratio)] * len(layers), multiple)


def check_ratio(name: str, value: float | None) -> float:
    """A preserve ratio in (0, 1], or a UserError that names it."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 < value <= 1:
        raise UserError(f"{name}: {value} given; a preserve ratio in (0, 1] is accepted")
    return float(value)


def _counts(layers: Sequence[PrunableLayer], ratios: Sequence[float], multiple: int) -> list[int]:
    return [
        kept_count(ratio, layer.channels, multiple) if layer.removable else layer.channels
        for layer, ratio in zip(layers, ratios, strict=True)
    ]


def _counts_for_macs(structure: Structure, layers: Sequence[PrunableLayer], share: float, multiple: int) -> list[int]:
    """The largest common ratio whose network has at most the share of the dense MACs."""
    if any(layer.way == "couple" for layer in layers):
        raise UserError("macs: with shared_input='couple' a preserve_ratio or ratios is accepted")
    model = CostModel(structure, [decision_of(structure, layer) for layer in layers])
    dense = model.macs([layer.channels for layer in layers])
    steps = sorted({k / layer.channels for layer in layers for k in range(1, layer.channels + 1)})
    fitting = [r for r in steps if model.macs(_counts(layers, [r] * len(layers), multiple)) <= share * dense]
    if not fitting:
        least = model.macs(_counts(layers, [steps[0]] * len(layers), multiple)) / dense
        raise UserError(f"macs: {share} given; {least:.3f} to 1 can be reached by one common ratio")
    return _counts(layers, [fitting[-1]] * len(layers), multiple)
