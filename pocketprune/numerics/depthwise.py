"""The refit of a depthwise convolution: every output sums over the taps of one channel, a small problem of its own.

All channels are solved at once. For channel j with taps x (k) and target y, in the notation of `moments`:

    w = (A + lambda I)^-1 (B + lambda w0),   b = mean_y - w^T mean_x,   lambda = ridge * mean diag A
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pocketprune.numerics.products import full_precision

_LEAST = torch.finfo(torch.float64).tiny ** 0.5


@dataclass
class TapMoments:
    """Sums over ``count`` rows for n channels of k taps, all float64 and on one device.

    Attributes:
        count: number of rows.
        mean_x: (n, k) mean taps.
        mean_y: (n,) mean target.
        A: (n, k, k) centred second moments of each channel's taps.
        B: (n, k) centred cross moments of taps and target.
        sigma: (n,) centred sum of squares of each target.
    """

    count: int
    mean_x: Tensor
    mean_y: Tensor
    A: Tensor
    B: Tensor
    sigma: Tensor

    @classmethod
    def zeros(cls, channels: int, taps: int, device: torch.device | str | None = None) -> TapMoments:
        """Return the moments of no rows."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        n, k = channels, taps
        return cls(0, empty(n, k), empty(n), empty(n, k, k), empty(n, k), empty(n))

    @classmethod
    @torch.no_grad()
    def of(cls, x: Tensor, y: Tensor) -> TapMoments:
        """Return the moments of rows x (m, n, k) and y (m, n), m > 0, multiplied in their own type."""
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = (x - mean_x).transpose(0, 1), (y - mean_y).T
        with full_precision(x.device):
            A, B = torch.bmm(x.transpose(1, 2), x), torch.bmm(x.transpose(1, 2), y[:, :, None])[:, :, 0]
        sigma = y.square().sum(1)
        return cls(x.shape[1], mean_x.double(), mean_y.double(), A.double(), B.double(), sigma.double())

    def merged(self, other: TapMoments) -> TapMoments:
        """Return the moments of both sets of rows (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return other if other.count else self
        between, share = self.count * other.count / count, other.count / count
        x, y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        return TapMoments(
            count,
            self.mean_x + share * x,
            self.mean_y + share * y,
            self.A + other.A + between * x[:, :, None] * x[:, None, :],
            self.B + other.B + between * x * y[:, None],
            self.sigma + other.sigma + between * y.square(),
        )


def refit_taps(moments: TapMoments, weight: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return the least-squares weight (n, k) and bias (n,), pulled towards the old weight (n, k)."""
    m, old = moments, weight.to(moments.A)
    lam = (ridge * m.A.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(_LEAST)
    damped = m.A + lam[:, None, None] * torch.eye(m.A.shape[1]).to(m.A)
    W = torch.linalg.solve_ex(damped, (m.B + lam[:, None] * old)[:, :, None]).result[:, :, 0]
    W = torch.where(W.isfinite().all(1, keepdim=True), W, old)
    return W, m.mean_y - (W * m.mean_x).sum(1)


def tap_errors(moments: TapMoments, W: Tensor, bias: Tensor) -> Tensor:
    """Return each channel's squared error (n,), summed over the rows, the miss of the mean included."""
    m, W = moments, W.to(moments.A)
    explained = 2 * m.B - (m.A @ W[:, :, None])[:, :, 0]
    miss = m.mean_y - (W * m.mean_x).sum(1) - bias.to(m.A)
    return m.sigma - (W * explained).sum(1) + m.count * miss.square()


def best_taps(
    fit: TapMoments, held: TapMoments, weight: Tensor, bias: Tensor, ridges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return for each channel the weight (n, k) and bias (n,) whose ridge has the lowest held-out error.

    They are fitted to all rows. A channel whose held-out error no ridge lowers keeps its old weight and bias.
    """
    both = fit.merged(held)
    W, b = weight.to(both.A), bias.to(both.A)
    least = tap_errors(held, W, b)
    for ridge in ridges:
        error = tap_errors(held, *refit_taps(fit, weight, ridge))
        better = error < least
        new_W, new_b = refit_taps(both, weight, ridge)
        W, b = torch.where(better[:, None], new_W, W), torch.where(better, new_b, b)
        least = torch.minimum(error, least)
    return W, b
