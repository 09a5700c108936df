"""Evidence: what is known of the channels of one group when some of them are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments


@dataclass(frozen=True)
class ConsumerSlice:
    """The part of a consumer that reads the channels.

    Attributes:
        weight: (d, n) with d = channels * block, channel-major as in ``patches``; n outputs.
        block: rows of the weight that belong to one channel.
        moments: second moments of its patches (d) and targets (n).
        output_weight: (n,) how much the error of each output counts; None for all alike.
    """

    weight: Tensor
    block: int
    moments: Moments | None = None
    output_weight: Tensor | None = None


@dataclass(frozen=True)
class ActivationStatistics:
    """Sums over the values of each channel of one activation. Those of several batches or processes are added.

    Attributes:
        count: values seen of each channel.
        zeros: (c,) how many of them were zero, float64.
        total: (c,) their sum, float64.
    """

    count: int
    zeros: Tensor
    total: Tensor

    @classmethod
    def of(cls, activations: Tensor, axis: int = 1) -> ActivationStatistics:
        """Return the statistics of one batch of activations, whose channels lie along ``axis``."""
        values = activations.detach().movedim(axis, 0).flatten(1)
        return cls(values.shape[1], (values == 0).sum(1).double(), values.double().sum(1))

    def __add__(self, other: ActivationStatistics) -> ActivationStatistics:
        """Return the statistics of both."""
        return ActivationStatistics(self.count + other.count, self.zeros + other.zeros, self.total + other.total)


@dataclass(frozen=True)
class GradientStatistics:
    """Sums over batches of each channel's products g * w. Those of several batches or processes are added.

    g is the gradient of one batch's loss, w the weight. Sum_s runs over the weights s of one channel.

    Attributes:
        products: (c,) sum over batches of sum_s g_s w_s, float64.
        squares: (c,) sum over batches of sum_s (g_s w_s)^2, float64.
        squared_products: (c,) sum over batches of (sum_s g_s w_s)^2, float64.
    """

    products: Tensor
    squares: Tensor
    squared_products: Tensor

    @classmethod
    def of(cls, weight: Tensor, gradient: Tensor) -> GradientStatistics:
        """Return the statistics of one batch from a weight (c, ...) and the gradient of the batch's loss."""
        product = (weight.detach().double() * gradient.detach().double()).reshape(weight.shape[0], -1)
        return cls(product.sum(1), product.square().sum(1), product.sum(1).square())

    def __add__(self, other: GradientStatistics) -> GradientStatistics:
        """Return the statistics of both."""
        return GradientStatistics(
            self.products + other.products,
            self.squares + other.squares,
            self.squared_products + other.squared_products,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a criterion may read of one channel group. Every part is optional, but for the number of channels.

    A part has one entry for each member of the group. All tensors of one part are on the same device.

    Attributes:
        channels: number of channels c.
        consumers: what the consumers read the channels with.
        filters: the producers' filters, each (c, ...): a weight with its output axis first. The input side of a
            weight can be scored in the same way, with its input axis first.
        norm_scales: the scales of the batch norms on the channels, each (c,).
        activations: statistics of the activations of the channels.
        gradients: statistics of the gradients of the channels' weights.
        aggregate: how the scores of several members become one, a key of ``AGGREGATES``.
        ridge: strength of the pull towards the old weight, relative to the mean diagonal of the moments.
        generator: source of random choices; None for torch's own.

    Raises:
        ValueError: there is no channel, or a part does not fit the number of channels.
    """

    channels: int
    consumers: Sequence[ConsumerSlice] = ()
    filters: Sequence[Tensor] = ()
    norm_scales: Sequence[Tensor] = ()
    activations: Sequence[ActivationStatistics] = ()
    gradients: Sequence[GradientStatistics] = ()
    aggregate: str = "sum"
    ridge: float = 1e-6
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        """Check that every part has the number of channels."""
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")
        for consumer in self.consumers:
            if consumer.weight.shape[0] != self.channels * consumer.block:
                shape = tuple(consumer.weight.shape)
                raise ValueError(
                    f"consumers must read the same channels: {self.channels} blocks of {consumer.block} rows "
                    f"do not make a weight of {shape}"
                )
        sizes = {
            "filters": [f.shape[0] for f in self.filters],
            "norm_scales": [s.shape[0] for s in self.norm_scales],
            "activations": [a.zeros.shape[0] for a in self.activations],
            "gradients": [g.products.shape[0] for g in self.gradients],
        }
        for part, found in sizes.items():
            if any(size != self.channels for size in found):
                raise ValueError(f"{part} must have {self.channels} channels each, got {found}")
