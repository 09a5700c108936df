"""Second moments of one consumer, streamed: all that selection and reconstruction ever need of the data.

For patches x (d = channels * block values, channel-major as in ``F.unfold``) and targets y (n outputs), m
rows:

    A = sum (x - mean_x)(x - mean_x)^T,   B = sum (x - mean_x)(y - mean_y)^T,   sigma = sum (y - mean_y)^2

Batches are centred before they are multiplied and merged by the rule of Chan, Golub and LeVeque (1983,
"Algorithms for computing the sample variance"), so that a large common mean costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pocketprune.numerics.conv_sums import conv_sums
from pocketprune.numerics.patches import output_rows, patches
from pocketprune.numerics.products import Sums, row_sums


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
        """Return the moments of no rows at all, for patches of d values and n targets."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(0, empty(d), empty(n), empty(d, d), empty(d, n), empty(n))

    def without_noise(self, eps: float) -> Moments:
        """Return the moments with zeros where a patch value is constant up to rounding.

        The sums of such a value hold rounding errors alone. A fit would divide one by another, and dead channels would
        get weights of any size.

        Args:
            eps: relative size of the rounding.
        """
        constant = self.A.diagonal() <= self.count * (eps * self.mean_x).square()
        A = self.A.masked_fill(constant[:, None] | constant[None, :], 0.0)
        return Moments(self.count, self.mean_x, self.mean_y, A, self.B.masked_fill(constant[:, None], 0.0), self.sigma)

    def through_origin(self) -> Moments:
        """Return the same sums about zero in place of the means: a fit to them has no intercept."""
        m, x, y = self.count, self.mean_x, self.mean_y
        return Moments(
            m,
            torch.zeros_like(x),
            torch.zeros_like(y),
            self.A + m * torch.outer(x, x),
            self.B + m * torch.outer(x, y),
            self.sigma + m * y.square(),
        )

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows in place.

        Rows in float64 are multiplied in float64, all others in float32 (never TF32), to about 1e-6 relative.

        Args:
            x: (m, d).
            y: (m, n).

        Raises:
            ValueError: the shapes do not fit.
        """
        if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
            raise ValueError(f"rows must be (m, d) and (m, n), got {tuple(x.shape)} and {tuple(y.shape)}")
        self._check_widths(x.shape[1], y.shape[1])
        if x.shape[0]:
            self._absorb(row_sums(x, y))

    @torch.no_grad()
    def update_conv(
        self,
        x: Tensor,
        y: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        positions: Tensor | None = None,
    ) -> None:
        """Add a batch of a convolution in place. It has one to three spatial axes, zero padding and one group.

        Args:
            x: input (N, C, *in).
            y: linear output (N, n, *out).
            kernel: size on each spatial axis, as the next three.
            stride: see kernel.
            padding: see kernel.
            dilation: see kernel.
            positions: flattened output positions, a LongTensor: (p,) shared by the images, or (N, p) with one set for
                each. None takes all, at a third of the cost per row.

        Raises:
            ValueError: the shapes do not fit.
        """
        self._check_widths(x.shape[1] * math.prod(kernel), y.shape[1])
        if positions is None:
            if y.numel():
                self._absorb(conv_sums(x, y, kernel, stride, padding, dilation))
        else:
            self.update(patches(x, kernel, stride, padding, dilation, positions), output_rows(y, positions))

    def merge(self, other: Moments) -> None:
        """Add the rows of ``other`` in place, as if they had been seen here; other is left as it is."""
        self._check_widths(*other.B.shape)
        if other.count:
            self._absorb(Sums(other.count, other.mean_x, other.mean_y, other.A, other.B, other.sigma))

    def _absorb(self, batch: Sums) -> None:
        batch = batch.to(self.A.device)
        total = self.count + batch.count
        delta_x, delta_y = batch.mean_x - self.mean_x, batch.mean_y - self.mean_y
        between, share = self.count * batch.count / total, batch.count / total
        self.A += batch.A
        self.B += batch.B
        self.sigma += batch.sigma
        if between:
            self.A.addr_(delta_x, delta_x, alpha=between)
            self.B.addr_(delta_x, delta_y, alpha=between)
            self.sigma.addcmul_(delta_y, delta_y, value=between)
        self.mean_x += share * delta_x
        self.mean_y += share * delta_y
        self.count = total

    def _check_widths(self, d: int, n: int) -> None:
        if (d, n) != tuple(self.B.shape):
            raise ValueError(f"moments of {tuple(self.B.shape)} values cannot take rows of {(d, n)} values")


def all_reduce(moments: Moments, group: dist.ProcessGroup | None = None) -> Moments:
    """Return the moments of all processes' rows, the same on every process.

    They are exact up to float64 rounding, as those of ``merge`` are: counts and means are summed first, then the sums
    about the common mean. Every process of the group must call this.

    Args:
        moments: this process's, of the same shape everywhere; they are left as they are.
        group: the processes; None for all.
    """
    d, n = moments.B.shape
    weighted = torch.cat([moments.mean_x, moments.mean_y]) * moments.count
    first = torch.cat([weighted, weighted.new_tensor([moments.count])])
    dist.all_reduce(first, group=group)
    count = int(first[-1])
    if count == 0:
        return Moments.zeros(d, n, moments.A.device)
    mean_x, mean_y = (part.clone() for part in torch.split(first[:-1] / count, [d, n]))
    delta_x, delta_y = moments.mean_x - mean_x, moments.mean_y - mean_y
    A = moments.A.addr(delta_x, delta_x, alpha=moments.count)
    B = moments.B.addr(delta_x, delta_y, alpha=moments.count)
    sigma = moments.sigma.addcmul(delta_y, delta_y, value=moments.count)
    for part in (A, B, sigma):
        dist.all_reduce(part, group=group)
    return Moments(count, mean_x, mean_y, A, B, sigma)
