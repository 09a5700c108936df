"""Quantisers: what stands in a network's graph where weights and activations pass through integer codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pocketprune.numerics.integers import (
    clipped_range,
    codebook,
    codebook_codes,
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

    Args:
        weight: the weight (n, ...).
        bits: of a code.
        per_channel: whether each output channel has a scale of its own; otherwise there is one.

    Attributes:
        bits: of a code.
        enabled: whether the weight is quantised; otherwise it passes as it is.
    """

    def __init__(self, weight: Tensor, bits: int, per_channel: bool = True) -> None:
        super().__init__()
        self.bits, self.enabled, self._per_channel = bits, True, per_channel
        self.scale = nn.Parameter(self._scales(weight))

    def _scales(self, weight: Tensor) -> Tensor:
        return weight_scales(weight if self._per_channel else weight.reshape(1, -1), self.bits)

    @torch.no_grad()
    def fit(self, weight: Tensor) -> None:
        """Choose the scales that suit a weight."""
        self.scale.copy_(self._scales(weight))

    def set_bits(self, bits: int, weight: Tensor) -> None:
        """Use codes of so many bits, and the scales that suit a weight."""
        self.bits = bits
        self.scale.data = self._scales(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight (n, ...) as its codes hold it."""
        return quantized_weight(weight, self.scale, self.bits) if self.enabled else weight


class CodebookQuantizer(nn.Module):
    """The round trip of one weight through the nearest of 2^bits numbers, which may lie anywhere.

    Args:
        weight: the weight (n, ...).
        bits: of a code.
        init: see `QuantizationOptions.codebook_init`.
        trained: see `QuantizationOptions.codebook_trained`.

    Attributes:
        bits: of a code.
        enabled: whether the weight is quantised; otherwise it passes as it is.
        numbers: those that the codes stand for, (2^bits,).
    """

    def __init__(self, weight: Tensor, bits: int, init: str, trained: str) -> None:
        super().__init__()
        self.bits, self.enabled, self._init, self._trained = bits, True, init, trained
        self.numbers = nn.Parameter(codebook(weight, bits, init))

    @torch.no_grad()
    def fit(self, weight: Tensor) -> None:
        """Choose the numbers that suit a weight."""
        self.numbers.copy_(codebook(weight, self.bits, self._init))

    def set_bits(self, bits: int, weight: Tensor) -> None:
        """Use codes of so many bits, and the numbers that suit a weight."""
        self.bits = bits
        self.numbers.data = codebook(weight, bits, self._init)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight (n, ...) as its codes hold it."""
        if not self.enabled:
            return weight
        numbers = self.numbers if self._trained != "weights" else self.numbers.detach() + 0 * self.numbers
        through = weight - weight.detach() if self._trained != "clusters" else 0 * weight
        return numbers[codebook_codes(weight, self.numbers).long()] + through


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
            self.samples.append(_drawn(x.detach().flatten(), len(self.samples)).cpu())
        if not self.enabled:
            return x
        if torch.is_grad_enabled():
            return quantized_activation(x, *self.range(), self.bits)
        scale, zero = scale_and_zero(*self.range(), self.bits)
        return requantize(x, scale, zero.to(torch.int32), top_code(self.bits))


def _drawn(values: Tensor, seed: int) -> Tensor:
    """Some values, drawn at random: evenly spaced ones can all lie in one column of a map, or in its padding."""
    if len(values) <= SAMPLES:
        return values
    generator = torch.Generator().manual_seed(seed)
    return values[torch.randint(len(values), (SAMPLES,), generator=generator).to(values.device)]


class Quantizers(nn.Module):
    """All quantisers of one network.

    Attributes:
        weights: name of a layer, its dots written as two underscores -> its quantiser.
        activations: name of a value -> its quantiser, in forward order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.activations = nn.ModuleDict(), nn.ModuleDict()

    def weight(self, key: str) -> WeightQuantizer | CodebookQuantizer:
        """Return the quantiser of a layer's weight."""
        found = self.weights[key]
        assert isinstance(found, WeightQuantizer | CodebookQuantizer)
        return found

    def activation(self, key: str) -> ActivationQuantizer:
        """Return the quantiser of a value."""
        found = self.activations[key]
        assert isinstance(found, ActivationQuantizer)
        return found

    def all_activations(self) -> dict[str, ActivationQuantizer]:
        """Return name of a value -> its quantiser, in forward order."""
        return {key: self.activation(key) for key in self.activations}
