"""Rows of a convolution: patches under chosen output positions, gathered without unfolding the whole map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Return the spatial shape of a convolution's output."""
    return tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def patches(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    positions: Tensor | None = None,
) -> Tensor:
    """Return the patches that a convolution sees. It has one to three spatial axes and zero padding.

    Args:
        x: input (N, C, *spatial).
        kernel: size on each spatial axis, as the next three.
        stride: see kernel.
        padding: see kernel.
        dilation: see kernel.
        positions: flattened output positions, a LongTensor: (p,) shared by the images, or (N, p) with one set for
            each. None takes all.

    Returns:
        Rows (N * p, C * prod(kernel)), over images, then positions. Columns are channel-major, as in ``F.unfold``.
    """
    if positions is None:
        return _all_patches(x, kernel, stride, padding, dilation)
    index, inside = _taps(x, kernel, stride, padding, dilation, positions)
    flat = x.flatten(2)
    if positions.ndim == 1:
        values = flat.index_select(2, index.flatten()).view(*flat.shape[:2], *index.shape)
    else:
        wanted = index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
        values = flat.gather(2, wanted).view(*flat.shape[:2], *index.shape[1:])
    if any(padding):
        values = values * (inside if positions.ndim == 1 else inside[:, None])
    return values.transpose(1, 2).flatten(2).flatten(0, 1)


def output_rows(y: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return rows (N * p, n) of y (N, n, *spatial), in the order of ``patches``."""
    flat = y.flatten(2)
    if positions is not None and positions.ndim == 1:
        flat = flat.index_select(2, positions)
    elif positions is not None:
        flat = flat.gather(2, positions[:, None].expand(-1, flat.shape[1], -1))
    return flat.transpose(1, 2).flatten(0, 1)


def _taps(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    positions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the flat input index (..., p, taps) under positions and taps, and 1 where it is inside the map, else 0."""
    size = x.shape[2:]
    out = output_size(size, kernel, stride, padding, dilation)
    index = positions.new_zeros((*positions.shape, 1))
    inside = torch.ones_like(index, dtype=torch.bool)
    rest = positions
    steps = [1] * len(size)
    for axis in range(len(size) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * out[axis + 1]
    for axis, step in enumerate(steps):
        start = torch.div(rest, step, rounding_mode="floor") * stride[axis] - padding[axis]
        rest = rest % step
        tap = start[..., None] + torch.arange(kernel[axis], device=rest.device) * dilation[axis]
        here = (tap >= 0) & (tap < size[axis])
        index = (index[..., None] * size[axis] + tap.clamp(0, size[axis] - 1)[..., None, :]).flatten(-2)
        inside = (inside[..., None] & here[..., None, :]).flatten(-2)
    return index, inside.to(x.dtype)


def _all_patches(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return every patch, by striding over the padded map: one copy."""
    pads = [p for p in reversed(padding) for _ in (0, 1)]
    padded = F.pad(x, pads) if any(pads) else x
    out = output_size(x.shape[2:], kernel, stride, padding, dilation)
    n, c, *steps = padded.stride()
    windows = padded.as_strided(
        (x.shape[0], *out, x.shape[1], *kernel),
        (
            n,
            *(s * t for s, t in zip(steps, stride, strict=True)),
            c,
            *(s * t for s, t in zip(steps, dilation, strict=True)),
        ),
    )
    axes = len(out)
    return windows.flatten(0, axes).flatten(1)
