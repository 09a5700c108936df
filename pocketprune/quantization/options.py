"""What a quantisation is to be, and what a quantised network remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pocketprune.common.options import Interval, check_options, option

BITS = Interval(2, 8, whole=True)


@dataclass(frozen=True, kw_only=True)
class QuantizationOptions:
    """How a network is quantised.

    Raises:
        UserError: a value that is not accepted.
    """

    weight_bits: int = option(
        8, "bits of a weight; 7 suit processors without integer dot products, whose sums overflow at 8", accept=BITS
    )
    activation_bits: int = option(8, "bits of an activation", accept=BITS)
    correct_bias: bool = option(True, "shift biases by what rounding the weights did to the mean outputs")
    ignore: tuple[str, ...] = ()
    """Names of layers that stay in float; wildcards are taken."""
    bits: dict[str, int] = field(default_factory=dict)
    """Layer -> bits of its weight, where they are other than `weight_bits`."""
    only_bits: bool = False
    """Quantise no layer but those of `bits`."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Quantization:
    """What doing a quantisation again takes: the data of a step.

    Attributes:
        layers: name of a quantised layer -> bits of its weight.
        activations: name of a quantised value -> bits, in forward order.
        example: shapes and dtypes of the example inputs.
    """

    layers: dict[str, int]
    activations: dict[str, int]
    example: Any
