"""Centred sums of a convolution over all its output positions, without ever unfolding the map.

For two taps s, t of the kernel, A_(i,s),(j,t) = sum_p x_i[p + s] x_j[p + t] is the correlation of the map
with itself at lag t - s, over a window that moves with s. Along one axis of stride 1 (the *lag axis*) only
lags are therefore multiplied: the map is cut into strips where windows begin or end, every strip is
multiplied once per lag, and A is put together by adding strips. The other axes are unfolded. For a 3x3
kernel that is 3 products of 3c x 3c in place of one of 9c x 9c, on rows of 3c values in place of 9c.
Nothing is subtracted, so that the sums are as exact as those of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pocketprune.numerics.patches import output_size
from pocketprune.numerics.products import Sums, full_precision, gram, recentre, working_dtype

# Unfolded rows held at once: what stays near a processor's cache, or enough to fill a GPU.
_CHUNK_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28}


def conv_sums(
    x: Tensor, y: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Sums:
    """Return the sums of a convolution over all its positions. It has one to three spatial axes and zero padding.

    Args:
        x: input (N, C, *in).
        y: targets (N, n, *out).
        kernel: size on each spatial axis, as the next three.
        stride: see kernel.
        padding: see kernel.
        dilation: see kernel.

    Returns:
        The sums; the columns of A are channel-major, as in ``patches``.

    Raises:
        ValueError: y does not have the shape of the output.
    """
    out = output_size(x.shape[2:], kernel, stride, padding, dilation)
    if y.shape[0] != x.shape[0] or tuple(y.shape[2:]) != out:
        raise ValueError(f"expected outputs of shape {(x.shape[0], 'n', *out)}, got {tuple(y.shape)}")
    dtype = working_dtype(x, y)
    shift_x, shift_y = (t.to(dtype).mean([0, *range(2, t.ndim)]) for t in (x, y))
    plan = _Plan.of(kernel, stride, padding, dilation)
    total = _Strips()
    x, y = plan.lag_first(x), plan.lag_first(y)
    step = plan.images_per_chunk(x, y)
    with full_precision(x.device):
        for part_x, part_y in zip(torch.split(x, step), torch.split(y, step), strict=True):
            total.add(plan, plan.unfold(part_x, shift_x), _channels_last(part_y, shift_y))
    A, B, sum_x = total.assemble(plan)
    order = plan.column_order(shift_x.shape[0], x.device)
    centre_x = shift_x.repeat_interleave(math.prod(kernel))
    count = x.shape[0] * math.prod(out)
    return recentre(
        count, (centre_x, sum_x[order]), (shift_y, total.sum_y), A[order[:, None], order], B[order], total.sigma
    )


@dataclass(frozen=True)
class _Plan:
    """Which axis is lagged. The first entry of every tuple is the lag axis; the others are unfolded.

    Where no axis has stride 1 and more than one tap, an axis of size 1 is put in front as the lag axis.
    """

    axis: int | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> _Plan:
        candidates = [a for a, (k, s) in enumerate(zip(kernel, stride, strict=True)) if s == 1 and k > 1]
        if not candidates:
            return cls(None, (1, *kernel), (1, *stride), (0, *padding), (1, *dilation))
        axis = max(candidates, key=lambda a: kernel[a])
        first = [axis, *(a for a in range(len(kernel)) if a != axis)]
        return cls(axis, *(tuple(v[a] for a in first) for v in (kernel, stride, padding, dilation)))

    def lag_first(self, t: Tensor) -> Tensor:
        """Return (N, C, *spatial) with the lag axis as the first spatial one."""
        return t.unsqueeze(2) if self.axis is None else t.movedim(2 + self.axis, 2)

    def images_per_chunk(self, x: Tensor, y: Tensor) -> int:
        line = x.shape[2] * math.prod(y.shape[3:]) * math.prod(self.kernel[1:]) * x.shape[1]
        return max(1, _CHUNK_BYTES.get(x.device.type, 1 << 24) // max(1, line * x.element_size()))

    def unfold(self, x: Tensor, shift: Tensor) -> Tensor:
        """Return rows (H, N * out, taps * C) of x (N, C, H, *rest) - shift, padded, the axes after H unfolded."""
        size = [s + 2 * p for s, p in zip(x.shape[2:], self.padding, strict=True)]
        n, c, rest = x.shape[0], x.shape[1], range(1, len(size))
        padded = shift.new_empty(size[0], n, *size[1:], c)
        if any(self.padding):
            padded.copy_(-shift)  # a zero, once shifted
        inside = padded
        for dim, (p, s) in enumerate(zip(self.padding, size, strict=True)):
            inside = inside.narrow(dim + (dim > 0), p, s - 2 * p)
        torch.sub(x.permute(2, 0, *range(3, x.ndim), 1), shift, out=inside)
        out = output_size(size[1:], self.kernel[1:], self.stride[1:], [0] * len(rest), self.dilation[1:])
        steps = padded.stride()[2:-1]
        windows = padded.as_strided(
            (size[0], n, *out, *self.kernel[1:], c),
            (
                *padded.stride()[:2],
                *(s * self.stride[a] for a, s in zip(rest, steps, strict=True)),
                *(s * self.dilation[a] for a, s in zip(rest, steps, strict=True)),
                1,
            ),
        )
        return windows.reshape(size[0], n * math.prod(out), math.prod(self.kernel[1:]) * c)

    def column_order(self, channels: int, device: torch.device) -> Tensor:
        """Return the column (tap of the lag axis, other taps, channel) of every channel-major column."""
        columns = torch.arange(math.prod(self.kernel) * channels, device=device)
        columns = columns.view(*self.kernel, channels).movedim(-1, 0)
        return (columns if self.axis is None else columns.movedim(1, 1 + self.axis)).flatten()

    def strips(self, height: int) -> Iterator[tuple[int, int, int, list[int]]]:
        """Yield every strip of every lag: (lag, first row, last row + 1, taps whose windows cover these rows)."""
        for lag in range(self.kernel[0]):
            starts = [tap * self.dilation[0] for tap in range(self.kernel[0] - lag)]
            cuts = sorted({*starts, *(s + height for s in starts)})
            for low, high in pairwise(cuts):
                taps = [tap for tap, s in enumerate(starts) if s <= low and high <= s + height]
                if taps:
                    yield lag, low, high, taps


class _Strips:
    """Float64 sums over chunks of images, strip by strip."""

    def __init__(self) -> None:
        self.A: dict[tuple[int, int], Tensor] = {}
        self.B = self.sum_x = self.sum_y = self.sigma = torch.zeros((), dtype=torch.float64)
        self.height = 0

    def add(self, plan: _Plan, x: Tensor, y: Tensor) -> None:
        """Add a chunk of images: x (H, rows, columns) as unfolded, y (height, rows, n) centred."""
        self.height = y.shape[0]
        for lag, low, high, _ in plan.strips(self.height):
            left, offset = x[low:high].flatten(0, 1), lag * plan.dilation[0]
            product = gram(left) if lag == 0 else left.T @ x[low + offset : high + offset].flatten(0, 1)
            self.A[lag, low] = product.double() + self.A.get((lag, low), 0.0)
        targets = y.flatten(0, 1)
        self.B = self.B + torch.stack([w.flatten(0, 1).T @ targets for w in self._windows(plan, x)]).double()
        lines = x.sum(1).double()
        self.sum_x = self.sum_x + torch.stack([w.sum(0) for w in self._windows(plan, lines)])
        self.sum_y = self.sum_y + targets.sum(0).double()
        self.sigma = self.sigma + targets.square().sum(0).double()

    def _windows(self, plan: _Plan, x: Tensor) -> list[Tensor]:
        """Return the rows that each tap of the lag axis sees."""
        starts = [tap * plan.dilation[0] for tap in range(plan.kernel[0])]
        return [x[s : s + self.height] for s in starts]

    def assemble(self, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
        """Return A, B and the sums of x, with columns (tap of the lag axis, other taps, channel)."""
        taps, columns, n = self.B.shape
        A = self.B.new_zeros(taps, taps, columns, columns)
        for lag, low, _, covered in plan.strips(self.height):
            for tap in covered:
                A[tap, tap + lag] += self.A[lag, low]
        for lag in range(1, taps):
            for tap in range(taps - lag):
                A[tap + lag, tap] = A[tap, tap + lag].T
        square = A.transpose(1, 2).reshape(taps * columns, taps * columns)
        return square, self.B.view(taps * columns, n), self.sum_x.flatten()


def _channels_last(y: Tensor, shift: Tensor) -> Tensor:
    """Return y (N, n, H, *rest) - shift as (H, N * rest, n)."""
    return (y.permute(2, 0, *range(3, y.ndim), 1) - shift).flatten(1, -2)
