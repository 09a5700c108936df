"""The kept count of every prunable layer, from a target: a ratio, a list or a share of the MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.numerics.ratios import kept_count
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import CostModel, decision_of
from pocketprune.structure.layers import PrunableLayer


@dataclass(frozen=True)
class MacsShare:
    """A share of the dense network's MACs, in (0, 1]. How layers share it is an option, `allocation`."""

    share: float


Target = float | Sequence[float] | MacsShare
"""One preserve ratio, one for each prunable layer, or a share of the MACs."""


def target_counts(
    structure: Structure, layers: Sequence[PrunableLayer], target: Target, channel_multiple: int = 1
) -> list[int]:
    """Return the number of input channels that each prunable layer keeps. Layers that cannot lose any keep all.

    Raises:
        UserError: a value outside (0, 1], a list of another length, or a share of MACs that no ratio reaches.
    """
    if isinstance(target, MacsShare):
        return _counts_for_share(structure, layers, checked_share(target), channel_multiple)
    if isinstance(target, str) or not isinstance(target, (Sequence, np.ndarray)):
        return _counts(layers, [_ratio("target", target)] * len(layers), channel_multiple)
    if len(target) != len(layers):
        names = ", ".join(layer.name for layer in layers)
        verb = "is" if len(layers) == 1 else "are"
        raise UserError(
            f"{len(target)} given; {len(layers)} {verb} accepted, one for each of {names}",
            argument="target",
        )
    ratios = [_ratio(f"target[{number}]", ratio) for number, ratio in enumerate(target)]
    return _counts(layers, ratios, channel_multiple)


def checked_share(target: MacsShare) -> float:
    """Return the share of a target, in (0, 1].

    Raises:
        UserError: it is not a number in this range.
    """
    return _ratio("target.share", target.share)


def _ratio(argument: str, value: Any) -> float:
    """Return a preserve ratio in (0, 1] as a float, or raise a UserError that names it."""
    if isinstance(value, Tensor) and value.dim() == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise UserError(f"{value} given; a preserve ratio in (0, 1] is accepted", argument=argument)
    return float(value)


def _counts(layers: Sequence[PrunableLayer], ratios: Sequence[float], channel_multiple: int) -> list[int]:
    return [
        kept_count(ratio, layer.channels, channel_multiple) if layer.removable else layer.channels
        for layer, ratio in zip(layers, ratios, strict=True)
    ]


def _counts_for_share(
    structure: Structure, layers: Sequence[PrunableLayer], share: float, channel_multiple: int
) -> list[int]:
    """Return the counts of the largest common ratio whose network has at most this share of the dense MACs."""
    if any(layer.way == "couple" for layer in layers):
        raise UserError(
            "a share of MACs given with shared_input='couple'; a ratio or a list is accepted", argument="target"
        )
    model = CostModel(structure, [decision_of(structure, layer) for layer in layers])
    dense = model.macs([layer.channels for layer in layers])
    steps = sorted({count / layer.channels for layer in layers for count in range(1, layer.channels + 1)})

    def counts(ratio: float) -> list[int]:
        return _counts(layers, [ratio] * len(layers), channel_multiple)

    fitting = [ratio for ratio in steps if model.macs(counts(ratio)) <= share * dense]
    if not fitting:
        least = model.macs(counts(steps[0])) / dense
        raise UserError(f"{share} given; {least:.3f} to 1 can be reached by one common ratio", argument="target.share")
    return counts(fitting[-1])
