"""Random small networks of what pruning by reconstruction can get wrong without a word.

Tensors shared by layers, weights computed from others, channels read without a weight, odd ways with the batch, inputs
and values changed in place, state that a forward pass changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

WIDTH, SIDE, CLASSES = 8, 6, 5

Choose = Callable[[Sequence[Any]], Any]
"""Picks one of several; hypothesis stands behind it."""


class Standardised(nn.Conv2d):
    """A convolution whose rows are standardised, as BiT's."""

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        return functional.conv2d(x, (self.weight - mean) / (var + 1e-6).sqrt(), self.bias, padding=self.padding)


class Scaled(nn.Conv2d):
    """A convolution whose rows a batch norm in training mode standardises, as timm's ScaledStdConv2d."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        gain = torch.full((self.out_channels,), 0.3)
        weight = functional.batch_norm(rows, None, None, gain, training=True, momentum=0.0, eps=1e-6)
        return functional.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=self.padding)


class Counting(nn.Module):
    """Counts its calls in a buffer, and keeps what it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.seen: Tensor | None = None

    def forward(self, y: Tensor) -> Tensor:
        self.calls += 1
        self.seen = y.detach()
        return y


class Scale(nn.Module):
    """A scale and a shift for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(WIDTH) + 0.5), nn.Parameter(torch.rand(WIDTH) - 0.5)

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)


LAYERS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "plain": lambda conv: conv,
    "no bias": lambda conv: _same(nn.Conv2d, conv, bias=False),
    "weight norm, new": parametrizations.weight_norm,
    "weight norm, old": weight_norm,
    "spectral norm, new": parametrizations.spectral_norm,
    "spectral norm, old": spectral_norm,
    "standardised": lambda conv: _same(Standardised, conv),
    "scaled": lambda conv: _same(Scaled, conv),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "batch": lambda: nn.BatchNorm2d(WIDTH),
    "batch without weights": lambda: nn.BatchNorm2d(WIDTH, affine=False),
    "scale": Scale,
    "group": lambda: nn.GroupNorm(2, WIDTH),
    "counting": Counting,
    "prelu": lambda: nn.PReLU(WIDTH),
}
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda y: y,
    "normalised": lambda y: functional.normalize(y, dim=1),
    "over its norm": lambda y: y / (y.norm(dim=1, keepdim=True) + 0.1),
    "gated by its sum": lambda y: y * torch.sigmoid(y.sum(1, keepdim=True)),
    "less its mean": lambda y: y - y.mean(1, keepdim=True),
    "over its largest": lambda y: y / (y.amax(1, keepdim=True) + 0.1),
    "softmax": lambda y: y * y.softmax(1) * WIDTH,
    "in place": lambda y: y.mul_(0.5).add_(0.1),
    "a part in place": lambda y: _first_row_doubled(y),
    "image by image": lambda y: torch.stack([t * 2 for t in y]),
    "flat and back": lambda y: y.view(len(y), -1).tanh().view(len(y), -1, *y.shape[2:]),
}
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "sub_": lambda x: x.sub_(0.5),
    "clamp_": lambda x: functional.hardtanh(x, inplace=True),
    "written to": lambda x: _first_row_doubled(x),
}
SHARED: dict[str, Callable[[Network, int, int], None]] = {
    "nothing": lambda net, i, j: None,
    "bias": lambda net, i, j: _share(net, i, j, "bias"),
    "bias's memory": lambda net, i, j: _share(net, i, j, "bias", memory=True),
    "bias within one memory": lambda net, i, j: _share_halves(net, i, j),
    "layer": lambda net, i, j: net.layers.__setitem__(j, net.layers[i]) if i else None,
    "norm": lambda net, i, j: net.norms.__setitem__(j, net.norms[i]),
    "weight, as an offset": lambda net, i, j: setattr(net, "offset", j),
}
JOINS = ("chain", "sum", "concatenation")
HEADS = ("mean", "flat", "convolution")


class Network(nn.Module):
    """Convolutions in a row, each followed by a norm and something that happens to its output; then a head."""

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        count = choose((2, 3, 4))
        self.story = [choose(tuple(INPUTS)), choose(JOINS), choose(HEADS)]
        self.offset: int | None = None
        self.layers, self.norms, self.steps = nn.ModuleList(), nn.ModuleList(), []
        for number in range(count):
            kind, norm, step = choose(tuple(LAYERS)), choose(tuple(NORMS)), choose(tuple(BETWEEN))
            size = choose((1, 3))
            conv = nn.Conv2d(3 if number == 0 else WIDTH, WIDTH, size, padding=size // 2)
            self.layers.append(LAYERS[kind](conv))
            self.norms.append(NORMS[norm]())
            self.steps.append(step)
            self.story.append(f"{size}x{size} {kind}, {norm}, {step}")
        shared, first = choose(tuple(SHARED)), choose(range(count - 1))
        SHARED[shared](self, first, count - 1)
        self.story.append(f"shared by {first} and {count - 1}: {shared}")
        width = 2 * WIDTH if self.story[1] == "concatenation" else WIDTH
        if self.story[2] == "convolution":
            self.head: nn.Module = nn.Conv2d(width, CLASSES, 3, padding=1)
        else:
            self.head = nn.Linear(width * (SIDE**2 if self.story[2] == "flat" else 1), CLASSES)
        _shake(self)

    def forward(self, x: Tensor) -> Tensor:
        x = INPUTS[self.story[0]](x)
        first = x
        for number, (layer, norm, step) in enumerate(zip(self.layers, self.norms, self.steps, strict=True)):
            x = norm(layer(x))
            if self.offset == number and isinstance(getattr(layer, "weight", None), Tensor):
                x = x + layer.weight.mean((1, 2, 3)).view(1, -1, 1, 1)
            x = BETWEEN[step](functional.relu(x, inplace=number % 2 == 1))
            first = x if number == 0 else first
        x = {"chain": lambda: x, "sum": lambda: x + first, "concatenation": lambda: torch.cat([x, first], 1)}[
            self.story[1]
        ]()
        return self._classify(x)

    def _classify(self, x: Tensor) -> Tensor:
        if self.story[2] == "convolution":
            return self.head(x)
        if self.story[2] == "flat":
            return self.head(x.reshape(len(x), -1))
        return self.head(x.mean((2, 3)))


def _same(kind: type[nn.Conv2d], conv: nn.Conv2d, *, bias: bool = True) -> nn.Conv2d:
    return kind(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, bias=bias)


def _first_row_doubled(y: Tensor) -> Tensor:
    y[:, :, 0] *= 2
    return y


def _share(net: Network, i: int, j: int, name: str, *, memory: bool = False) -> None:
    """Give layer j the parameter of layer i, or one in the same memory."""
    one, other = net.layers[i], net.layers[j]
    if getattr(one, name, None) is not None and getattr(other, name, None) is not None:
        setattr(other, name, nn.Parameter(getattr(one, name).data) if memory else getattr(one, name))


def _share_halves(net: Network, i: int, j: int) -> None:
    """Let the biases of two layers be halves of one memory, each its own."""
    both = torch.randn(2 * WIDTH)
    for number, layer in enumerate((net.layers[i], net.layers[j])):
        if getattr(layer, "bias", None) is not None:
            layer.bias = nn.Parameter(both[number * WIDTH : (number + 1) * WIDTH])


@torch.no_grad()
def _shake(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
