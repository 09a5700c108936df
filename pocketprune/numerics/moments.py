"""Second moments of one consumer, streamed: all that selection and reconstruction ever need of the data.

For patches x (d = channels * block values, channel-major as ``F.unfold``) and targets y (n outputs) over m rows:

    A = sum (x - mean_x)(x - mean_x)^T,   B = sum (x - mean_x)(y - mean_y)^T,   sigma = sum (y - mean_y)^2

Batches are centred before they are multiplied and merged with Chan's rule, so that a large common mean costs no
digits (Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pocketprune.numerics import patches as patch_ops
from pocketprune.numerics.precision import full_precision


@dataclass
class Moments:
    """Sums over ``count`` rows, all float64 and on one device.

    Attributes:
        count: number of rows m.
        mean_x: (d,) mean patch.
        mean_y: (n,) mean target.
        A: (d, d) centred second moments of the patches.
        B: (d, n) centred cross moments of patches and targets.
        sigma: (n,) centred sum of squares of each target.
    """

    count: int
    mean_x: Tensor
    mean_y: Tensor
    A: Tensor
    B: Tensor
    sigma: Tensor

    @classmethod
    def zeros(cls, d: int, n: int, device: torch.device | str | None = None) -> Moments:
        """Moments of no rows at all, for patches of d values and n targets."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(0, empty(d), empty(n), empty(d, d), empty(d, n), empty(n))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows in place: x (m, d), y (m, n).

        float64 rows are multiplied in float64; all others in float32 (never TF32), centred, which loses about 4e-7.
        Raises ValueError when the shapes do not fit.
        """
        if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
            raise ValueError(f"rows must be (m, d) and (m, n), got {tuple(x.shape)} and {tuple(y.shape)}")
        if (x.shape[1], y.shape[1]) != tuple(self.B.shape):
            raise ValueError(f"rows of {x.shape[1]} and {y.shape[1]} values for moments of {tuple(self.B.shape)}")
        if x.shape[0]:
            self.merge(_row_moments(x.detach(), y.detach(), self.A.device))

    def update_conv(self, x: Tensor, y: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...],
                    padding: tuple[int, ...], dilation: tuple[int, ...], positions: Tensor | None = None) -> None:
        """Add a batch of a convolution in place: input x (N, C, *in), linear output y (N, n, *out).

        positions: flattened output positions, (p,) shared by the images or (N, p) one set per image; None takes all.
        """
        rows = patch_ops.patches(x, kernel, stride, padding, dilation, positions)
        self.update(rows, patch_ops.output_rows(y, positions))

    def merge(self, other: Moments) -> None:
        """Add the rows of ``other`` in place, as if they had been seen here; other is left as it is."""
        total = self.count + other.count
        if other.count == 0:
            return
        delta_x, delta_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        between, share = self.count * other.count / total, other.count / total
        self.A += other.A
        self.A.addr_(delta_x, delta_x, alpha=between)
        self.B += other.B
        self.B.addr_(delta_x, delta_y, alpha=between)
        self.sigma += other.sigma + between * delta_y.square()
        self.mean_x += share * delta_x
        self.mean_y += share * delta_y
        self.count = total


def all_reduce(moments: Moments, group: dist.ProcessGroup | None = None) -> Moments:
    """The moments of all processes' rows, the same on every process; ``moments`` is left as it is.

    Exact up to float64 rounding, like ``merge``: first counts and means, then the sums about the common mean.
    """
    d, n = moments.B.shape
    weighted = torch.cat([moments.mean_x, moments.mean_y]) * moments.count
    first = torch.cat([weighted, weighted.new_tensor([moments.count])])
    dist.all_reduce(first, group=group)
    count = int(first[-1])
    if count == 0:
        return Moments.zeros(d, n, moments.A.device)
    mean_x, mean_y = (first[:-1] / count).split([d, n])
    delta_x, delta_y = moments.mean_x - mean_x, moments.mean_y - mean_y
    A = moments.A.addr(delta_x, delta_x, alpha=moments.count)
    B = moments.B.addr(delta_x, delta_y, alpha=moments.count)
    sigma = moments.sigma + moments.count * delta_y.square()
    for part in (A, B, sigma):
        dist.all_reduce(part, group=group)
    return Moments(count, mean_x, mean_y, A, B, sigma)


def _row_moments(x: Tensor, y: Tensor, device: torch.device) -> Moments:
    """Moments of one batch of rows, centred before the products."""
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    shift_x, shift_y = x.to(dtype).mean(0), y.to(dtype).mean(0)
    x, y, m = x.to(dtype) - shift_x, y.to(dtype) - shift_y, x.shape[0]
    # A float32 mean is only a good guess; what it leaves (rest_x, rest_y) is taken out exactly below.
    rest_x, rest_y = x.sum(0, dtype=torch.float64) / m, y.sum(0, dtype=torch.float64) / m
    with full_precision(x):
        A, B = (x.T @ x).double(), (x.T @ y).double()
    sigma = y.square().sum(0, dtype=torch.float64)
    batch = Moments(m, shift_x.double() + rest_x, shift_y.double() + rest_y,
                    A.addr_(rest_x, rest_x, alpha=-m), B.addr_(rest_x, rest_y, alpha=-m),
                    sigma - m * rest_y.square())
    for name in ("mean_x", "mean_y", "A", "B", "sigma"):
        setattr(batch, name, getattr(batch, name).to(device))
    return batch
