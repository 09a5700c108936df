"""Compact versions of the convolutional families people use: as few layers as show the family's pattern."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cbr(
    c_in: int, c_out: int, size: int = 3, stride: int = 1, groups: int = 1, act: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out), act()
    )


class Classifier(nn.Module):
    """Features, global average, linear."""

    def __init__(self, *features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.fc = nn.Sequential(*features), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: projected, or padded with zero channels."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, padded: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.stride, self.extra, self.relu = stride, c_out - c_in, nn.ReLU(inplace=True)
        self.down = (
            None
            if padded or c_in == c_out
            else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.down is not None:
            x = self.down(x)
        elif self.extra:
            sides = (self.extra // 2, self.extra - self.extra // 2)
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *sides))
        out += x
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, squeeze-excite if asked, 1x1; ResNet-50, ResNeXt and RegNet-Y blocks."""

    def __init__(self, c_in: int, width: int, c_out: int, stride: int = 1, groups: int = 1, se: bool = False) -> None:
        super().__init__()
        self.a, self.b = cbr(c_in, width, 1), cbr(width, width, 3, stride, groups)
        self.se = SqueezeExcite(width, 4) if se else nn.Identity()
        self.c = cbr(width, c_out, 1, act=nn.Identity)
        self.down = cbr(c_in, c_out, 1, stride, act=nn.Identity) if c_in != c_out or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(self.se(self.b(self.a(x)))) + self.down(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class DenseLayer(nn.Module):
    """Norm, activation, convolution twice; the result joins the input."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-excite if asked, project; MobileNet v2/v3 and EfficientNet blocks."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        expand: int,
        stride: int = 1,
        se: bool = False,
        act: Callable[[], nn.Module] = nn.ReLU6,
        gate: type[nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        width = c_in * expand
        self.body = nn.Sequential(
            cbr(c_in, width, 1, act=act),
            cbr(width, width, 3, stride, width, act),
            SqueezeExcite(width, max(2, width // 4), gate) if se else nn.Identity(),
            cbr(width, c_out, 1, act=nn.Identity),
        )
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle of the ShuffleNets."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)


class ShuffleUnit1(nn.Module):
    """ShuffleNet v1: grouped 1x1, shuffle, depthwise, grouped 1x1; added, or joined to the pooled input."""

    def __init__(self, c_in: int, c_out: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        out = c_out - c_in if stride == 2 else c_out
        self.reduce, self.depthwise = (
            cbr(c_in, c_out // 4, 1, groups=groups),
            cbr(c_out // 4, c_out // 4, 3, stride, c_out // 4, act=nn.Identity),
        )
        self.expand = cbr(c_out // 4, out, 1, groups=groups, act=nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle(self.reduce(x), self.groups)))
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1) if self.stride == 2 else x + y)


class ShuffleUnit2(nn.Module):
    """ShuffleNet v2: half of the channels pass, half are worked on, both are shuffled together."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, half = stride, c_out // 2
        start = c_in if stride == 2 else half
        self.branch = nn.Sequential(
            cbr(start, half, 1), cbr(half, half, 3, stride, half, nn.Identity), cbr(half, half, 1)
        )
        self.left = nn.Sequential(cbr(c_in, c_in, 3, 2, c_in, nn.Identity), cbr(c_in, half, 1)) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.left is not None:
            return shuffle(torch.cat([self.left(x), self.branch(x)], 1), 2)
        left, right = x.chunk(2, 1)
        return shuffle(torch.cat([left, self.branch(right)], 1), 2)


class Fire(nn.Module):
    """SqueezeNet: squeeze, then 1x1 and 3x3 side by side."""

    def __init__(self, c_in: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class Inception(nn.Module):
    """Four branches side by side, one with factorised convolutions."""

    def __init__(self, c_in: int, width: int) -> None:
        super().__init__()
        self.one, self.pooled = cbr(c_in, width, 1), cbr(c_in, width // 2, 1)
        self.three = nn.Sequential(cbr(c_in, width, 1), cbr(width, 2 * width))
        self.five = nn.ModuleList(
            [
                cbr(c_in, width // 2, 1),
                nn.Conv2d(width // 2, width, (1, 3), padding=(0, 1)),
                nn.Conv2d(width // 2, width, (3, 1), padding=(1, 0)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        five = self.five[0](x)
        five = torch.cat([self.five[1](five), self.five[2](five)], 1)
        return torch.cat([self.one(x), self.three(x), five, self.pooled(F.max_pool2d(x, 3, 1, 1))], 1)


class Ghost(nn.Module):
    """Half of the output by a convolution, the other half by cheap depthwise ones; cut to width."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = -(-c_out // 2)
        self.primary, self.cheap, self.width = cbr(c_in, half, 1), cbr(half, half, 3, 1, half), c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.width]


class GhostBottleneck(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.expand, self.se, self.reduce = Ghost(channels, width), SqueezeExcite(width, 4), Ghost(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(self.se(self.expand(x)))


class GoogLeNet(nn.Module):
    """Inception blocks with an auxiliary classifier that is silent in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = cbr(3, 8, 3, 2), Inception(8, 4), Inception(22, 6)
        self.auxiliary, self.dropout, self.fc = nn.Linear(22, 5), nn.Dropout(0.2), nn.Linear(33, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.a(self.stem(x))
        out = self.fc(self.dropout(self.b(F.max_pool2d(y, 3, 2, 1)).mean((2, 3))))
        return (out, self.auxiliary(y.mean((2, 3)))) if self.training else out


CONVOLUTIONAL: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(
        *cbr(3, 8),
        nn.MaxPool2d(2),
        *cbr(8, 12),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 16, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(16, 5),
    ),
    "resnet": lambda: Classifier(cbr(3, 8), BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16), channels=16),
    "resnet_padded": lambda: Classifier(
        cbr(3, 8),
        BasicBlock(8, 8),
        BasicBlock(8, 16, 2, True),
        BasicBlock(16, 16),
        BasicBlock(16, 20, 2, True),
        channels=20,
    ),
    "resnet_bottleneck": lambda: Classifier(
        cbr(3, 8, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        Bottleneck(8, 4, 16),
        Bottleneck(16, 4, 16),
        Bottleneck(16, 8, 32, 2),
        channels=32,
    ),
    "resnext": lambda: Classifier(
        cbr(3, 8), Bottleneck(8, 16, 16, groups=8), Bottleneck(16, 16, 24, 2, 4), channels=24
    ),
    "regnet": lambda: Classifier(
        cbr(3, 8, 3, 2),
        Bottleneck(8, 16, 16, 1, 2, True),
        Bottleneck(16, 16, 16, 1, 2, True),
        Bottleneck(16, 24, 24, 2, 3, True),
        channels=24,
    ),
    "densenet": lambda: Classifier(
        cbr(3, 8),
        DenseLayer(8, 4),
        DenseLayer(12, 4),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1),
        nn.AvgPool2d(2),
        DenseLayer(8, 4),
        channels=12,
    ),
    "mobilenet_v1": lambda: Classifier(
        cbr(3, 8, 3, 2), cbr(8, 8, 3, 1, 8), cbr(8, 16, 1), cbr(16, 16, 3, 2, 16), cbr(16, 24, 1), channels=24
    ),
    "mobilenet_v2": lambda: Classifier(
        cbr(3, 8),
        InvertedResidual(8, 8, 1),
        InvertedResidual(8, 12, 3, 2),
        InvertedResidual(12, 12, 3),
        cbr(12, 20, 1),
        channels=20,
    ),
    "mobilenet_v3": lambda: Classifier(
        cbr(3, 8, act=nn.Hardswish),
        InvertedResidual(8, 12, 2, 2, True, nn.Hardswish, nn.Hardsigmoid),
        InvertedResidual(12, 12, 3, 1, True, nn.Hardswish, nn.Hardsigmoid),
        channels=12,
    ),
    "efficientnet": lambda: Classifier(
        cbr(3, 8, act=nn.SiLU),
        InvertedResidual(8, 8, 1, 1, True, nn.SiLU),
        InvertedResidual(8, 12, 4, 2, True, nn.SiLU),
        InvertedResidual(12, 12, 4, 1, True, nn.SiLU),
        channels=12,
    ),
    "shufflenet_v1": lambda: Classifier(cbr(3, 16), ShuffleUnit1(16, 32, 2, 2), ShuffleUnit1(32, 32, 2), channels=32),
    "shufflenet_v1_3": lambda: Classifier(cbr(3, 12), ShuffleUnit1(12, 108, 3, 2), channels=108),
    "shufflenet_v2": lambda: Classifier(
        cbr(3, 8), ShuffleUnit2(8, 16, 2), ShuffleUnit2(16, 16), ShuffleUnit2(16, 16), cbr(16, 24, 1), channels=24
    ),
    "squeezenet": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(8, 4, 8),
        Fire(16, 4, 8),
        nn.Dropout(),
        nn.Conv2d(16, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "inception": lambda: Classifier(cbr(3, 8, 3, 2), Inception(8, 4), nn.MaxPool2d(2), Inception(22, 6), channels=33),
    "googlenet": GoogLeNet,
    "ghostnet": lambda: Classifier(cbr(3, 8), GhostBottleneck(8, 12), GhostBottleneck(8, 15), channels=8),
}
"""Networks for images of 3x16x16."""
