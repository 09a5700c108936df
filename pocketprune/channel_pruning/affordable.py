"""Layers whose statistics fit into memory, and the layers that are left alone because theirs do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pocketprune.structure.layers import PrunableLayer

COPIES = 2
"""A layer's moments are held twice: of the images that the fit uses, and of the held-out ones."""


def moments_gb(layer: PrunableLayer) -> float:
    """Return the GiB of a layer's moments: A (d, d) and B (d, n) in float64 for each group of a convolution."""
    groups = layer.layer.groups
    d, n = layer.channels // groups * math.prod(layer.kernel), layer.out_channels // groups
    return COPIES * groups * d * (d + n) * 8 / 2**30


def is_affordable(layer: PrunableLayer, limit: float) -> bool:
    """Return whether a layer's moments need at most `limit` GiB."""
    return moments_gb(layer) <= limit


def affordable(layers: Sequence[PrunableLayer], limit: float) -> list[PrunableLayer]:
    """Return the layers of a list; those whose moments need more than `limit` GiB stay whole."""
    return [layer if layer.way == "fixed" or is_affordable(layer, limit) else _whole(layer, limit) for layer in layers]


def left_alone(layer: PrunableLayer, limit: float) -> str:
    """Return a line on a layer that is not refitted."""
    return f"{layer.name} is neither pruned nor refitted: {_reason(layer, limit)}"


def _whole(layer: PrunableLayer, limit: float) -> PrunableLayer:
    return replace(layer, way="fixed", removable=False, reason=_reason(layer, limit))


def _reason(layer: PrunableLayer, limit: float) -> str:
    return f"its statistics need {moments_gb(layer):.1f} GB, and moments_gb allows {limit:g}"
