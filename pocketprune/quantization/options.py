"""What a quantisation is to be, and what a quantised network remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.options import Interval, check_option, check_options, option

BITS = Interval(2, 8, whole=True)
FLOAT_BITS = 32
ACTIVATION_BITS = Interval(2, 8, whole=True, beside=FLOAT_BITS)
CODEBOOKS = ("quantile", "uniform")
TRAINED = ("weights", "clusters", "both")


@dataclass(frozen=True, kw_only=True)
class QuantizationOptions:
    """How a network is quantised.

    Raises:
        UserError: a value that is not accepted.
    """

    weight_bits: int = option(
        8, "bits of a weight; 7 suit processors without integer dot products, whose sums overflow at 8", accept=BITS
    )
    activation_bits: int = option(
        8, "bits of an activation, 2 to 8; 32: activations stay in float", accept=ACTIVATION_BITS
    )
    per_channel: bool = option(True, "a scale for each output channel, in place of one for a whole layer")
    codebook: bool = option(False, "codes stand for any 2^bits numbers of a layer, not for evenly spaced ones")
    codebook_init: str = option(
        "quantile",
        "codebook: numbers at first at quantiles of the weights, or evenly spaced (uniform)",
        accept=CODEBOOKS,
    )
    codebook_trained: str = option(
        "weights", "codebook: what training moves: the weights between the numbers, the numbers (clusters), or both",
        accept=TRAINED,
    )  # fmt: skip
    whole: bool = option(True, "quantise the first and the last layer as well")
    correct_bias: bool = option(True, "shift biases by what rounding the weights did to the mean outputs")
    ignore: tuple[str, ...] = ()
    """Names of layers that stay in float; wildcards are taken."""
    bits: dict[str, int] = field(default_factory=dict)
    """Layer -> bits of its weight, where they are other than `weight_bits`."""
    only_bits: bool = False
    """Quantise no layer but those of `bits`."""

    def __post_init__(self) -> None:
        check_options(self)
        for bits in self.bits.values():
            check_option("bits", bits, BITS)
        if isinstance(self.ignore, str):
            raise UserError(f"'{self.ignore}' given; a tuple of names is accepted", argument="ignore")


@dataclass(frozen=True)
class Quantization:
    """What doing a quantisation again takes: the data of a step.

    Attributes:
        layers: name of a quantised layer -> bits of its weight.
        activations: name of a quantised value -> bits, in forward order.
        example: shapes and dtypes of the example inputs.
        codebook: whether weights are numbers of a codebook.
    """

    layers: dict[str, int]
    activations: dict[str, int]
    example: Any
    codebook: bool = False
