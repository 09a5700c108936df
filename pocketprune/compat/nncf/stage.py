"""How far a network is compressed."""

from __future__ import annotations

from enum import IntEnum
from math import isclose

import torch


class CompressionStage(IntEnum):
    """Whether nothing, something or all of what was asked for is compressed; for choosing the best checkpoint."""

    UNCOMPRESSED = 0
    PARTIALLY_COMPRESSED = 1
    FULLY_COMPRESSED = 2


torch.serialization.add_safe_globals([CompressionStage])  # scripts save it beside the weights


def stage_of(level: float, target: float) -> CompressionStage:
    """Return the stage at a level."""
    if level == 0:
        return CompressionStage.UNCOMPRESSED
    if level > target or isclose(level, target, abs_tol=1e-5):
        return CompressionStage.FULLY_COMPRESSED
    return CompressionStage.PARTIALLY_COMPRESSED
