"""Operators that move channels about, for random networks."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.generator import Builder, Op, Value


def _axis(x: Value) -> int:
    return 1 if x.example.dim() == 4 else x.example.dim() - 1


def roll(b: Builder, x: Value) -> Value:
    axis, shift = _axis(x), b.pick([1, 2, 3])
    return b.step(lambda n, t: t.roll(shift, axis), x)


def flip(b: Builder, x: Value) -> Value:
    axis = _axis(x)
    return b.step(lambda n, t: t.flip(axis), x)


def permute_channels(b: Builder, x: Value) -> Value:
    axis, order = _axis(x), list(range(x.channels))
    random.Random(b.pick([1, 2, 3])).shuffle(order)
    index = torch.tensor(order)
    if axis == 1 and b.pick([False, True]):
        return b.step(lambda n, t: t[:, order], x)
    return b.step(lambda n, t: t.index_select(axis, index), x)


def halves(b: Builder, x: Value) -> Value:
    """Two halves that meet again in one of several ways."""
    axis = _axis(x)
    if x.channels % 2:
        return roll(b, x)
    how = b.pick(
        [
            lambda s, t: s * t.sigmoid(),
            lambda s, t: torch.cat([t, s], axis),
            lambda s, t: s + t,
            lambda s, t: torch.cat([s, t, s + t], axis),
            lambda s, t: torch.cat([s.relu(), t], axis),
            lambda s, t: t.tanh(),
        ]
    )
    return b.step(lambda n, t: how(*t.chunk(2, axis)), x)


def uneven(b: Builder, x: Value) -> Value:
    """A split in unequal parts, put together in another order."""
    axis, first = _axis(x), b.pick(list(range(1, x.channels))) if x.channels > 1 else 0
    if not first:
        return roll(b, x)
    sizes = [first, x.channels - first]
    if b.pick([False, True]):
        return b.step(
            lambda n, t: torch.cat(
                [p.relu() if p.shape[axis] > 1 else p for p in reversed(t.split(sizes, axis))], axis
            ),
            x,
        )
    return b.step(lambda n, t: t.narrow(axis, first - 1, sizes[1] + 1) * 2, x)


def halves_into_layers(b: Builder, x: Value) -> Value:
    if x.channels % 2 or x.example.dim() != 4:
        return uneven(b, x)
    width = b.width()
    one, two = (b.layer(nn.Conv2d(x.channels // 2, width, 1)) for _ in range(2))
    first = b.pick([0, 1])
    return b.step(lambda n, t: n[one](t.chunk(2, 1)[first]) + n[two](t.chunk(2, 1)[1 - first]), x)


def c2f(b: Builder, x: Value) -> Value:
    if x.channels % 2 or x.channels > 16 or x.example.dim() != 4:
        return uneven(b, x)
    layer = b.layer(nn.Conv2d(x.channels // 2, x.channels // 2, 3, padding=1))

    def compute(n, t):
        s, u = t.chunk(2, 1)
        return torch.cat([s, u, n[layer](u)], 1)

    return b.step(compute, x)


def shuffle(b: Builder, x: Value) -> Value:
    groups = b.pick([d for d in range(1, x.channels + 1) if x.channels % d == 0])

    def compute(n, t):
        batch, channels, height, width = t.shape
        return t.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(t.shape)

    return b.step(compute, x)


def channel_shuffle(b: Builder, x: Value) -> Value:
    groups = b.pick([d for d in range(1, x.channels + 1) if x.channels % d == 0])
    return b.step(lambda n, t: F.channel_shuffle(t, groups), x)


def pixel_shuffle(b: Builder, x: Value) -> Value:
    if x.channels % 4 or x.shape[2] > 4:
        return pixel_unshuffle(b, x)
    return b.step(lambda n, t: F.pixel_shuffle(t, 2), x)


def pixel_unshuffle(b: Builder, x: Value) -> Value:
    if x.shape[2] % 2 or x.channels > 8:
        return roll(b, x)
    return b.step(lambda n, t: F.pixel_unshuffle(t, 2), x)


def space_to_depth(b: Builder, x: Value) -> Value:
    if x.shape[2] % 2 or x.channels > 12:
        return flip(b, x)
    return b.step(lambda n, t: torch.cat([t[..., ::2, ::2], t[..., 1::2, 1::2]], 1), x)


def maxout(b: Builder, x: Value) -> Value:
    if x.channels % 2:
        return roll(b, x)
    axis = b.pick([1, 2])
    shape = (2, x.channels // 2) if axis == 1 else (x.channels // 2, 2)
    return b.step(lambda n, t: t.unflatten(1, shape).amax(axis), x)


def repeat(b: Builder, x: Value) -> Value:
    if x.channels > 12:
        return flip(b, x)
    how = b.pick(
        [
            lambda t: t.repeat(1, 2, 1, 1),
            lambda t: t.repeat_interleave(2, 1),
            lambda t: torch.cat([t.relu(), (-t).relu()], 1),
            lambda t: torch.stack([t, t * 2], 2).flatten(1, 2),
        ]
    )
    return b.step(lambda n, t: how(t), x)


def patches(b: Builder, x: Value) -> Value:
    if x.channels > 4:
        return roll(b, x)
    return b.step(lambda n, t: F.unfold(t, 3, padding=1).view(t.shape[0], -1, *t.shape[2:]), x)


def write_slice(b: Builder, x: Value) -> Value:
    first = b.pick(list(range(1, x.channels + 1)))

    def compute(n, t):
        t = t.clone()
        t[:, :first] += 1
        t[:, :, :1] *= 2
        return t

    return b.step(compute, x)


def zeros_appended(b: Builder, x: Value) -> Value:
    count = b.pick([1, 2, 4])
    return b.step(lambda n, t: torch.cat([t, t.new_zeros(t.shape[0], count, *t.shape[2:])], 1), x)


def unbind(b: Builder, x: Value) -> Value:
    """Two parts of the channels by unbind, the neighbours or the halves, and one of them or both."""
    if x.channels % 2:
        return flip(b, x)
    axis, inner = _axis(x), b.pick([False, True])
    shape = (x.channels // 2, 2) if inner else (2, x.channels // 2)
    how = b.pick([torch.mul, lambda s, t: s.tanh(), lambda s, t: torch.stack([t, s], axis).flatten(axis, axis + 1)])
    return b.step(lambda n, t: how(*t.unflatten(axis, shape).unbind(axis + 1 if inner else axis)), x)


def sliced(b: Builder, x: Value) -> Value:
    """Every other channel, from the first or the second; or all but the last."""
    if x.channels < 3:
        return flip(b, x)
    how = b.pick([slice(None, None, 2), slice(1, None, 2), slice(None, -1)])
    return b.step(lambda n, t: t.movedim(_axis(x), 0)[how].movedim(0, _axis(x)), x)


def windows(b: Builder, x: Value) -> Value:
    """Overlapping windows along the width, joined to the channels."""
    if x.channels > 6 or x.shape[3] < 4:
        return roll(b, x)
    return b.step(lambda n, t: t.unfold(3, 2, 2).permute(0, 1, 4, 2, 3).flatten(1, 2), x)


def to_tokens(b: Builder, x: Value) -> Value:
    if b.pick([False, True]):
        return b.step(lambda n, t: t.flatten(2).transpose(1, 2), x)
    return b.step(lambda n, t: t.permute(0, 2, 3, 1).reshape(t.shape[0], -1, t.shape[1]), x)


def to_vector(b: Builder, x: Value) -> Value:
    """Flattened, channels first or last, where it is small; else a mean over the map."""
    if x.example[0].numel() > 64:
        return b.step(lambda n, t: t.mean((2, 3)), x)
    if b.pick([False, True]):
        return b.step(lambda n, t: t.permute(0, 2, 3, 1).reshape(t.shape[0], -1), x)
    return b.step(lambda n, t: t.flatten(1), x)


MOVES: dict[str, Op] = {
    "roll": roll,
    "flip": flip,
    "permute_channels": permute_channels,
    "halves": halves,
    "uneven": uneven,
    "halves_into_layers": halves_into_layers,
    "c2f": c2f,
    "shuffle": shuffle,
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "space_to_depth": space_to_depth,
    "maxout": maxout,
    "repeat": repeat,
    "patches": patches,
    "write_slice": write_slice,
    "zeros_appended": zeros_appended,
    "unbind": unbind,
    "sliced": sliced,
    "windows": windows,
    "to_tokens": to_tokens,
    "to_vector": to_vector,
}
