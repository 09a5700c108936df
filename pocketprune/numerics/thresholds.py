"""Thresholds: which weights, or structures of them, are large enough to stay."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest

SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda rows: rows.abs().amax(1),
    "mean_abs": lambda rows: rows.abs().mean(1),
}
"""What is compared with a threshold, of rows (c, values); independent of how long they are."""


def spliced(sizes: Tensor, masked: Tensor, low: float, high: float) -> Tensor:
    """Return where a weight is masked next: below the low threshold, not from the high one on, as before between them.

    The function h of Guo, Yao and Chen 2016, "Dynamic Network Surgery for Efficient DNNs", equation 3.

    Args:
        sizes: the magnitude of each weight.
        masked: where it is masked now, a boolean of the same shape.
        low, high: the thresholds; low is not above high.
    """
    return (sizes < low) | (masked & (sizes < high))


def above(rows: Tensor, threshold: float, size: str = "max") -> Tensor:
    """Return which rows (c, values) are above a threshold, a boolean (c,).

    Raises:
        UserError: an unknown size.
    """
    if size not in SIZES:
        raise UserError(f"'{size}' given{nearest(size, SIZES)}", argument="size")
    return SIZES[size](rows.detach()) > threshold
