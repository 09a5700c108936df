"""Quantisers: what stands in a network's graph where weights and activations pass through integer codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pocketprune.numerics.integers import (
    clipped_range,
    quantized_activation,
    quantized_weight,
    requantize,
    scale_and_zero,
    top_code,
    weight_scales,
)

SAMPLES = 1 << 15
"""Values of one activation that are kept from one calibration batch."""


class WeightQuantizer(nn.Module):
    """The round trip of one weight through codes, with a trainable scale for each output channel.

    Attributes:
        bits: of a code.
        enabled: whether the weight is quantised; otherwise it passes as it is.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits, self.enabled = bits, True
        self.scale = nn.Parameter(weight_scales(weight, bits))

    @torch.no_grad()
    def fit(self, weight: Tensor) -> None:
        """Choose the scales that suit a weight."""
        self.scale.copy_(weight_scales(weight, self.bits))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight (n, ...) as its codes hold it."""
        return quantized_weight(weight, self.scale, self.bits) if self.enabled else weight


class ActivationQuantizer(nn.Module):
    """The round trip of one activation through codes, with a trainable range.

    Attributes:
        bits: of a code.
        enabled: whether the activation is quantised; otherwise it passes as it is.
        samples: values seen, while it observes; None: it does not.
        signed: 1 where the activation has negative values; where it has none, `low` stays 0.
    """

    signed: Tensor

    def __init__(self, bits: int, device: torch.device) -> None:
        super().__init__()
        self.bits, self.enabled = bits, True
        self.samples: list[Tensor] | None = None
        self.low, self.high = (nn.Parameter(torch.full((1,), end, device=device)) for end in (0.0, 1.0))
        self.register_buffer("signed", torch.ones(1, device=device))

    @torch.no_grad()
    def fit(self, samples: Tensor) -> None:
        """Choose the range that suits values (n,)."""
        low, high = clipped_range(samples, self.bits)
        self.signed.fill_(float(low < 0))
        self.low.fill_(low)
        self.high.fill_(high)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the ends of the range (1,), between which 0 lies, in training as well."""
        return (self.low * self.signed).clamp_max(0), self.high.clamp_min(0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation as its codes hold it."""
        if self.samples is not None:
            flat = x.detach().flatten()
            self.samples.append(flat[:: max(1, len(flat) // SAMPLES)].cpu())
        if not self.enabled:
            return x
        if torch.is_grad_enabled():
            return quantized_activation(x, *self.range(), self.bits)
        scale, zero = scale_and_zero(*self.range(), self.bits)
        return requantize(x, scale, zero.to(torch.int32), top_code(self.bits))


class Quantizers(nn.Module):
    """All quantisers of one network.

    Attributes:
        weights: name of a layer, its dots written as two underscores -> its quantiser.
        activations: name of a value -> its quantiser, in forward order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.activations = nn.ModuleDict(), nn.ModuleDict()

    def weight(self, key: str) -> WeightQuantizer:
        """Return the quantiser of a layer's weight."""
        found = self.weights[key]
        assert isinstance(found, WeightQuantizer)
        return found

    def activation(self, key: str) -> ActivationQuantizer:
        """Return the quantiser of a value."""
        found = self.activations[key]
        assert isinstance(found, ActivationQuantizer)
        return found

    def all_activations(self) -> dict[str, ActivationQuantizer]:
        """Return name of a value -> its quantiser, in forward order."""
        return {key: self.activation(key) for key in self.activations}
