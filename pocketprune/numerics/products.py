"""Centred products of a batch of rows: float32 in, float64 out, no digits lost to TF32 or large means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LEAF = 64  # columns below which halving a symmetric product no longer pays


@dataclass(frozen=True)
class Sums:
    """What a batch of ``count`` rows adds to the moments: A (d, d), B (d, n), sigma (n,), centred on its own means."""

    count: int
    mean_x: Tensor
    mean_y: Tensor
    A: Tensor
    B: Tensor
    sigma: Tensor

    def to(self, device: torch.device) -> Sums:
        """Return the same sums on a device."""
        parts = (self.mean_x, self.mean_y, self.A, self.B, self.sigma)
        return Sums(self.count, *(part.to(device) for part in parts))


def row_sums(x: Tensor, y: Tensor) -> Sums:
    """Return centred sums of rows x (m, d), y (m, n), m > 0, multiplied in float64 if either is, else in float32."""
    dtype = working_dtype(x, y)
    x, y = x.to(dtype), y.to(dtype)
    shift_x, shift_y = x.mean(0), y.mean(0)
    x, y = x - shift_x, y - shift_y
    with full_precision(x.device):
        A, B = gram(x).double(), (x.T @ y).double()
    return recentre(x.shape[0], (shift_x, x.sum(0)), (shift_y, y.sum(0)), A, B, y.square().sum(0))


def recentre(
    count: int, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], A: Tensor, B: Tensor, sigma: Tensor
) -> Sums:
    """Take out exactly what a rounded centre left in the sums of products.

    Args:
        count: number of rows.
        x: the centre (d,) and the sum (d,) of the patches once centred on it.
        y: the centre (n,) and the sum (n,) of the targets once centred on it.
        A: (d, d), changed in place.
        B: (d, n), changed in place.
        sigma: (n,).

    Returns:
        The sums about the exact means, float64.
    """
    rest_x, rest_y = x[1].double() / count, y[1].double() / count
    A.addr_(rest_x, rest_x, alpha=-count)
    B.addr_(rest_x, rest_y, alpha=-count)
    sigma = sigma.double() - count * rest_y.square()
    return Sums(count, x[0].double() + rest_x, y[0].double() + rest_y, A, B, sigma)


def gram(x: Tensor) -> Tensor:
    """Return x^T x of (m, d), from its upper half: about 0.6 of the work of the plain product when d is large."""
    product = x.new_empty(x.shape[1], x.shape[1])
    _upper(x, product)
    return product.triu_().add_(product.triu(1).T)


def _upper(x: Tensor, out: Tensor) -> None:
    d = x.shape[1]
    if d <= _LEAF:
        out.copy_(x.T @ x)
        return
    half = (d // 2 + 15) // 16 * 16
    left, right = x[:, :half], x[:, half:]
    _upper(left, out[:half, :half])
    _upper(right, out[half:, half:])
    out[:half, half:] = left.T @ right


def working_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return float64 if either is of it, else float32."""
    return torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Make float32 products on ``device`` IEEE products inside; the caller's settings return on exit."""
    legacy = torch.get_float32_matmul_precision()
    matmuls: list[Any] = [getattr(backend, "matmul", None) for backend in (torch.backends.cuda, torch.backends.mkldnn)]
    backends = [matmul for matmul in matmuls if _has_switch(matmul)]
    saved = [b.fp32_precision for b in backends]
    # This setter moves the old and the new switches together; torch refuses to multiply when they disagree.
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, saved, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


def _has_switch(backend: Any) -> bool:
    """Return whether this torch has the per-backend precision switch (2.9 and later)."""
    try:
        return isinstance(backend.fp32_precision, str)
    except (AttributeError, AssertionError):
        return False
