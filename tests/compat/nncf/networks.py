"""The networks of NNCF's own tests, with their weights, and configurations for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.compat.nncf import NNCFConfig


def configured(shape: list[int], init: float = 0.0, **params: Any) -> NNCFConfig:
    """A configuration of one entry."""
    entry = {"algorithm": "filter_pruning", "pruning_init": init, "params": params}
    return NNCFConfig.from_dict({"input_info": {"sample_size": shape}, "compression": entry})


@torch.no_grad()
def filled(layer: Any, base: float, bias: float = 0.0, *, rising: bool = True) -> Any:
    """A convolution whose kernels are constant but for their diagonal; filter i has i more."""
    layer.weight.fill_(base)
    layer.weight += torch.eye(layer.kernel_size[0])
    if rising:
        layer.weight += torch.arange(layer.out_channels).view(-1, 1, 1, 1)
    layer.bias.fill_(bias)
    return layer


class Big(nn.Module):
    """Network A of the reference: depthwise, transposed, linear, and a layer norm on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = filled(nn.Conv2d(1, 16, 2), 0, 1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv_depthwise = filled(nn.Conv2d(16, 16, 3, groups=16), 0, 1)
        self.conv2 = filled(nn.Conv2d(16, 32, 3), 20)
        self.bn2 = nn.BatchNorm2d(32)
        self.up = filled(nn.ConvTranspose2d(32, 64, 3, stride=2), 3, 1, rising=False)
        self.linear = nn.Linear(3136, 128)
        self.layernorm = nn.LayerNorm(128)
        self.bn3 = nn.BatchNorm2d(128)
        self.conv3 = filled(nn.Conv2d(128, 1, 1), 5, 1)
        with torch.no_grad():
            self.up.weight[0] += torch.arange(64).view(-1, 1, 1)
            self.linear.weight.copy_(torch.arange(128).view(-1, 1).expand(-1, 3136))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(self.conv_depthwise(x))))
        x = torch.relu(self.up(x)).flatten(1)
        x = self.layernorm(self.linear(x))[:, :, None, None]
        return self.conv3(self.bn3(x)).flatten(1)


class ConcatWithLinear(nn.Module):
    """Two convolutions side by side, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = filled(nn.Conv2d(1, 16, 2), 1, -2)
        self.conv2 = filled(nn.Conv2d(16, 32, 2), 2, -2)
        self.conv3 = filled(nn.Conv2d(16, 32, 2), 2, -2)
        self.linear = nn.Linear(64 * 6 * 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.linear(torch.cat([self.conv2(x), self.conv3(x)], dim=1).view(1, -1).relu())


class BroadcastedLinear(nn.Module):
    """A linear layer's output added to a convolution's at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = filled(nn.Conv2d(1, 32, 1), 1)
        self.conv1 = filled(nn.Conv2d(32, 16, 1), 1)
        self.linear1 = nn.Linear(32 * 8 * 8, 16)
        self.last_linear = nn.Linear(16 * 8 * 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_conv(x)
        z = self.linear1(x.view(1, -1))
        return self.last_linear((self.conv1(x) + z.view(1, -1, 1, 1)).view(1, -1))


class BatchedLinear(nn.Module):
    """A linear layer on the width of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Conv2d(1, 32, 1)
        self.linear1 = nn.Linear(8, 16)
        self.last_linear = nn.Linear(32 * 8 * 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_linear(self.linear1(self.first_conv(x)).view(1, -1))


class Kinds(nn.Module):
    """One convolution of each kind: first, depthwise, strided, grouped, plain."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 2)
        self.depthwise = nn.Conv2d(32, 32, 1, groups=32)
        self.strided = nn.Conv2d(32, 32, 3, stride=2)
        self.grouped = nn.Conv2d(32, 16, 1, groups=8)
        self.plain = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.strided(self.depthwise(self.first(x).relu()))
        return self.last(self.plain(self.grouped(x)).relu())


class Small(nn.Module):
    """Two blocks of convolution and batch norm, the second one residual, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.layer = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.bn1(self.conv1(x)).relu())
        return self.fc(self.conv2(x).relu().mean((2, 3)))
