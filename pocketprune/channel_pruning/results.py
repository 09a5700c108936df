"""The results of a pruning."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class LayerResult:
    """The result for one prunable layer.

    Attributes:
        index: its place in the ratio list.
        name: of the layer.
        channels: number of input channels before.
        kept: number of input channels after.
        kept_index: indices of these channels.
        preserve_ratio: the share of the channels that was kept.
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
    """The pruned network, and how it was pruned.

    Attributes:
        net: the pruned network.
        layers: the results for the prunable layers.
        macs: multiply-adds per single input.
        dense_macs: those of the dense network.
        params: number of parameters.
        dense_params: that of the dense network.
        output_error: squared difference between the outputs of the thinned and of the dense network on the held-out
            images, relative to the variance of the latter.
        warnings: what the owner of the network should know, one line each.
        seconds: duration of each phase.
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
