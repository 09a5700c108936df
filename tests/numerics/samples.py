"""Small correlated activations, weights and targets, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments
from pocketprune.numerics.products import Sums


def make_rows(
    channels: int = 6,
    block: int = 4,
    outputs: int = 5,
    rows: int = 400,
    *,
    noise: float = 0.0,
    mean: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows x (m, d), weight (d, n) and targets y = x W + 1 + noise; the columns of x are correlated."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    d = channels * block
    x = (normal(rows, d // 2 + 1) @ normal(d // 2 + 1, d) + normal(rows, d)).relu() + mean
    weight = normal(d, outputs)
    return x, weight, x @ weight + 1 + noise * normal(rows, outputs)


def moments_of(x: Tensor, y: Tensor) -> Moments:
    """Moments of all rows in one batch."""
    moments = Moments.zeros(x.shape[1], y.shape[1])
    moments.update(x, y)
    return moments


def assert_same(a: Moments | Sums, b: Moments | Sums, tolerance: float) -> None:
    """Every part of a equals b's, relative to b's largest entry."""
    assert a.count == b.count
    for name in ("mean_x", "mean_y", "A", "B", "sigma"):
        mine, theirs = getattr(a, name).cpu(), getattr(b, name).cpu()
        assert mine.dtype == torch.float64
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max(), name
