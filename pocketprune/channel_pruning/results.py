"""What a pruning returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class LayerResult:
    """What became of one prunable layer.

    Attributes:
        channels: number of input channels before.
        kept: number of input channels after; `kept_index` says which.
        error_before: error of the layer's output relative to its variance on held-out images, with the old weight on
            the kept channels.
        error_after: the same with the refitted weight.
        macs_before: multiply-adds per single input in the dense network.
        macs_after: multiply-adds per single input in the thinned network.
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
    """The pruned network and what was done to it.

    Attributes:
        macs: multiply-adds per single input; `dense_macs` those of the dense network.
        output_error: squared difference of the outputs from the dense network's on the held-out images, relative to
            the variance of the latter, measured on the thinned network.
        warnings: what the owner of the network should know, one line each.
        seconds: by phase.
    """

    net: nn.Module
    layers: list[LayerResult]
    macs: int
    dense_macs: int
    params: int
    dense_params: int
    output_error: float = 0.0
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
