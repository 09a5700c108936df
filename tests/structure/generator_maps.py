"""Operators on feature maps for random networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.generator import Builder, Op, Value


def _conv(b: Builder, x: Value) -> Value:
    size = b.pick([1, 3])
    layer = b.layer(
        nn.Conv2d(
            x.channels,
            b.width(),
            size,
            padding=size // 2,
            bias=b.pick([True, False]),
            padding_mode=b.pick(["zeros", "zeros", "circular"]) if size == 3 else "zeros",
        )
    )
    return b.step(lambda n, t: n[layer](t), x)


def _strided_conv(b: Builder, x: Value) -> Value:
    if x.shape[2] < 4:
        return _conv(b, x)
    layer = b.layer(nn.Conv2d(x.channels, b.width(), 3, stride=2, padding=1))
    return b.step(lambda n, t: n[layer](t), x)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _grouped(b: Builder, x: Value) -> Value:
    groups = b.pick(_divisors(x.channels))
    layer = b.layer(nn.Conv2d(x.channels, groups * b.pick([1, 2, 3]), 3, padding=1, groups=groups))
    return b.step(lambda n, t: n[layer](t), x)


def _depthwise(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.Conv2d(x.channels, x.channels * b.pick([1, 2, 3]), 3, padding=1, groups=x.channels))
    return b.step(lambda n, t: n[layer](t), x)


def _transposed(b: Builder, x: Value) -> Value:
    groups = b.pick(_divisors(x.channels))
    stride = 2 if x.shape[2] < 8 else 1
    layer = b.layer(nn.ConvTranspose2d(x.channels, groups * b.pick([1, 2, 4]), stride, stride, groups=groups))
    return b.step(lambda n, t: n[layer](t), x)


def _conv3d(b: Builder, x: Value) -> Value:
    """The map as a video of two frames."""
    layer = b.layer(nn.Conv3d(x.channels, b.width(), (2, 3, 3), padding=(0, 1, 1)))
    return b.step(lambda n, t: n[layer](torch.stack([t, t.flip(-1)], 2)).squeeze(2), x)


def _raw_conv(b: Builder, x: Value) -> Value:
    weight = b.parameter(b.width(), x.channels, 1, 1)
    return b.step(lambda n, t: F.conv2d(t, n[weight]), x)


def _shared_conv(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.Conv2d(x.channels, x.channels, 3, padding=1))
    return b.step(lambda n, t: n[layer](n[layer](t).relu()), x)


def _norm(b: Builder, x: Value) -> Value:
    kind = b.pick(["batch", "instance", "group"])
    if kind == "batch":
        layer = b.layer(nn.BatchNorm2d(x.channels))
    elif kind == "instance" and x.shape[2] > 1:
        layer = b.layer(nn.InstanceNorm2d(x.channels, affine=True))
    else:
        layer = b.layer(nn.GroupNorm(b.pick(_divisors(x.channels)), x.channels))
    return b.step(lambda n, t: n[layer](t), x)


ACTIVATIONS = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky": F.leaky_relu,
    "elu": F.elu,
    "abs": torch.abs,
    "negate": torch.neg,
}


def activation(b: Builder, x: Value) -> Value:
    """Any of the usual ones, on a value of any kind."""
    act = ACTIVATIONS[b.pick(sorted(ACTIVATIONS))]
    return b.step(lambda n, t: act(t), x)


def _prelu(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.PReLU(b.pick([1, x.channels])))
    return b.step(lambda n, t: n[layer](t), x)


def _pool(b: Builder, x: Value) -> Value:
    if x.shape[2] < 2:
        return activation(b, x)
    pool = b.pick(
        [F.max_pool2d, F.avg_pool2d, lambda t, _: F.adaptive_avg_pool2d(t, 2), lambda t, _: F.max_pool2d(t, 3, 1, 1)]
    )
    return b.step(lambda n, t: pool(t, 2), x)


def _upsample(b: Builder, x: Value) -> Value:
    mode = b.pick(["nearest", "bilinear"])
    size = 8 if x.shape[2] < 8 else 4
    return b.step(lambda n, t: F.interpolate(t, size=size, mode=mode), x)


def combine(b: Builder, x: Value) -> Value:
    """Two values of one shape, element by element; in place sometimes."""
    how = b.pick(
        [
            torch.add,
            torch.sub,
            torch.mul,
            torch.maximum,
            lambda s, t: torch.stack([s, t]).sum(0),
            lambda s, t: torch.stack([s, t], 1).amax(1),
            lambda s, t: s.clone().add_(t),
            torch.Tensor.mul,
        ]
    )
    return b.step(lambda n, s, t: how(s, t), x, b.alike(x))


def _residual(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.Conv2d(x.channels, x.channels, 3, padding=1))
    return b.step(lambda n, t: t + n[layer](t.relu()), x)


def _bottleneck(b: Builder, x: Value) -> Value:
    width = b.width()
    one, two = b.layer(nn.Conv2d(x.channels, width, 1)), b.layer(nn.Conv2d(width, x.channels, 3, padding=1))
    return b.step(lambda n, t: n[two](n[one](t).relu()) + t, x)


def _padded_shortcut(b: Builder, x: Value) -> Value:
    before, after = b.pick([0, 1, 2]), b.pick([1, 2, 3])
    layer = b.layer(nn.Conv2d(x.channels, x.channels + before + after, 3, padding=1))
    return b.step(lambda n, t: n[layer](t) + F.pad(t, (0, 0, 0, 0, before, after)), x)


def join(b: Builder, x: Value) -> Value:
    """Concatenation with other values that fit, the network's input among them."""
    axis = 1 if x.example.dim() == 4 else x.example.dim() - 1
    fits = [
        v
        for v in b.values
        if v.example.dim() == x.example.dim()
        and v.channels + x.channels < 40
        and [s for d, s in enumerate(v.shape) if d != axis] == [s for d, s in enumerate(x.shape) if d != axis]
    ]
    if not fits:
        return activation(b, x)
    other, third = b.pick(fits), b.pick(fits)
    if b.pick([False, False, True]):
        return b.step(lambda n, s, t, u: torch.cat([t, s, u], axis), x, other, third)
    return b.step(lambda n, s, t: torch.cat([s, t], axis), x, other)


def _se(b: Builder, x: Value) -> Value:
    """Squeeze and excite: by linear layers, by 1x1 convolutions, by one conv1d over the channels' means."""
    width, how = b.pick([2, 4]), b.pick(["linear", "conv", "gate"])
    if how == "conv":
        down, up = b.layer(nn.Conv2d(x.channels, width, 1)), b.layer(nn.Conv2d(width, x.channels, 1))
        return b.step(lambda n, t: t * n[up](F.silu(n[down](F.adaptive_avg_pool2d(t, 1)))).sigmoid(), x)
    if how == "gate":
        layer = b.layer(nn.Linear(x.channels, x.channels, bias=False))
        return b.step(
            lambda n, t: F.hardsigmoid(n[layer](t.amax((2, 3)))).view(t.shape[0], -1, 1, 1).expand_as(t) * t, x
        )
    down, up = b.layer(nn.Linear(x.channels, width)), b.layer(nn.Linear(width, x.channels))
    return b.step(lambda n, t: t * n[up](n[down](t.mean((2, 3))).relu()).sigmoid()[:, :, None, None], x)


def _modulate(b: Builder, x: Value) -> Value:
    """Scale and shift computed from another value, a vector where there is one."""
    vectors = [v for v in b.values if v.example.dim() == 2 and v.example.is_floating_point()]
    other = b.pick(vectors) if vectors else x
    layer = b.layer(nn.Linear(other.channels, 2 * x.channels))

    def compute(n, t, v):
        scale, shift = n[layer](v if v.dim() == 2 else v.mean((2, 3)))[:, :, None, None].chunk(2, 1)
        return t * (1 + scale) + shift

    return b.step(compute, x, other)


def _unet(b: Builder, x: Value) -> Value:
    """Down, a convolution, up again, and the skip joined."""
    if x.shape[2] % 2 or x.channels > 24:
        return _conv(b, x)
    width = b.width()
    inner, up = b.layer(nn.Conv2d(x.channels, width, 3, padding=1)), b.layer(nn.ConvTranspose2d(width, width, 2, 2))
    transposed = b.pick([False, True])

    def compute(n, t):
        y = n[inner](F.max_pool2d(t, 2)).relu()
        return torch.cat([t, n[up](y) if transposed else F.interpolate(y, scale_factor=2.0)], 1)

    return b.step(compute, x)


def in_place(b: Builder, x: Value) -> Value:
    """Operators that change the value itself, for all who read it later."""
    how = b.pick(
        [
            torch.relu_,
            lambda t: t.mul_(2),
            lambda t: F.silu(t, inplace=True),
            lambda t: t.add_(t.sigmoid()),
            lambda t: t.clamp_(-1, 1),
        ]
    )
    return b.step(lambda n, t: how(t), x)


def _gate(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.Conv2d(x.channels, 1, 1))
    return b.step(lambda n, t: t * n[layer](t).sigmoid(), x)


def _energy(b: Builder, x: Value) -> Value:
    width = b.width()
    one, two = b.layer(nn.Conv2d(x.channels, width, 1)), b.layer(nn.Conv2d(x.channels, width, 1))
    return b.step(lambda n, t: t * (n[one](t) * n[two](t)).sum(1, keepdim=True).sigmoid(), x)


def _scale(b: Builder, x: Value) -> Value:
    scale, shift = b.parameter(x.channels, 1, 1), b.parameter(1, x.channels, 1, 1)
    return b.step(lambda n, t: t * n[scale] + n[shift], x)


def _buffer(b: Builder, x: Value) -> Value:
    """A buffer of a number per channel and place, multiplied; one number, added."""
    scale, shift = b.buffer(torch.rand(1, x.channels, *x.shape[2:]) + 0.5), b.buffer(torch.rand(1))
    return b.step(lambda n, t: t * n[scale] + n[shift], x)


def _literal(b: Builder, x: Value) -> Value:
    channels = x.channels
    return b.step(lambda n, t: t + torch.arange(channels, dtype=t.dtype).view(-1, 1, 1) / channels, x)


MAPS: dict[str, Op] = {
    "conv": _conv,
    "conv_again": _conv,
    "conv3d": _conv3d,
    "modulate": _modulate,
    "unet": _unet,
    "buffer": _buffer,
    "in_place": in_place,
    "strided_conv": _strided_conv,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "transposed": _transposed,
    "raw_conv": _raw_conv,
    "shared_conv": _shared_conv,
    "norm": _norm,
    "activation": activation,
    "prelu": _prelu,
    "pool": _pool,
    "upsample": _upsample,
    "combine": combine,
    "residual": _residual,
    "bottleneck": _bottleneck,
    "padded_shortcut": _padded_shortcut,
    "join": join,
    "se": _se,
    "gate": _gate,
    "energy": _energy,
    "scale": _scale,
    "literal": _literal,
}
