"""Small networks with what quantisation has to deal with: sums, depthwise layers, batch norms, samplers, graphs."""

import torch
from torch import Tensor, nn

import pocketprune


class Small(nn.Module):
    """A residual network on images (3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one, self.one_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.deep_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.two, self.two_norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 12, 3, stride=2)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.one_norm(self.one(x)).relu()
        y = nn.functional.relu6(self.deep_norm(self.deep(y)))
        x = (x + self.two_norm(self.two(y))).relu()
        x = self.down(nn.functional.max_pool2d(x, 2)).relu()
        return self.head(x.mean((2, 3)))


def small(seed: int = 0) -> nn.Module:
    """The network with batch norms that do something, one of whose scales is negative."""
    torch.manual_seed(seed)
    net = Small()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data[0] *= -1
    return net.eval()


def images(count: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


class Viewing(nn.Module):
    """A network with a width written into its code, so that thinning rewrites its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3)
        self.norm, self.last = nn.BatchNorm2d(12), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = x.view(-1, 12, 8, 8)
        return self.last(self.second(x).relu().mean((2, 3)))


def pruned() -> nn.Module:
    """The network pruned as modules, one of which reads its input through a sampler."""
    options = pocketprune.PruningOptions(points_per_layer=2)
    return pocketprune.prune_channels(small(), [images(16)], 0.5, options=options).net.eval()


def rewritten() -> nn.Module:
    """A pruned network that is a rewritten graph."""
    torch.manual_seed(0)
    net = Viewing().eval()
    return pocketprune.remove_channels(net, images(2), {"first": [0, 2, 3, 5, 7, 11]}).eval()
