"""Networks whose thinner copies differ in form: the network's own code, a rewritten graph, samplers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pocketprune


class Halves(nn.Module):
    """Its code writes widths into a view, so that a thinner copy runs as a rewritten graph."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.half = width // 2
        self.conv, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.a, self.out = nn.Conv2d(width // 2, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu()
        y = y.view(x.shape[0], 2, self.half, *y.shape[2:]).sum(1)
        return self.out(self.a(y).relu().mean((2, 3)))


def plain(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 10, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(360, 4),
    )


class Residual(nn.Module):
    """Reads its stream in several layers: pruned with samplers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.b, self.out = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.out(self.b(x + self.a(x).relu()).relu()).mean((2, 3))


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def thinned(dense: nn.Module) -> nn.Module:
    """The network without the first channel of every prunable group."""
    groups = [g for g in pocketprune.find_channel_groups(dense, images()) if g.prunable]
    return pocketprune.remove_channels(dense, images(), {g.name: range(1, g.size) for g in groups})


def refitted(dense: nn.Module) -> nn.Module:
    return pocketprune.prune_channels(
        dense, [images(16)], 0.5, options=pocketprune.PruningOptions(points_per_layer=0)
    ).net
