"""What pruning hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class LayerResult:
    """What became of one prunable layer.

    Attributes:
        channels, kept: input channels before and after; kept_index: which.
        error_before, error_after: error of the layer's output relative to its variance on held-out images, with the
            old weight on the kept channels and with the refitted one.
        macs_before, macs_after: multiply-adds per single input, the latter in the thinned network.
        note: why nothing was removed, or what was done instead.
    """

    index: int
    name: str
    channels: int
    kept: int
    kept_index: tuple[int, ...]
    preserve_ratio: float
    error_before: float
    error_after: float
    macs_before: int
    macs_after: int
    note: str


@dataclass
class PruneResult:
    """The pruned network and what was done to it. MACs are per single input; seconds by phase."""

    net: nn.Module
    layers: list[LayerResult]
    macs: int
    dense_macs: int
    params: int
    dense_params: int
    seconds: dict[str, float] = field(default_factory=dict)
