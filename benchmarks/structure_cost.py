"""What it costs to see through a network: tracing, grouping, checking and thinning, by network.

    python benchmarks/structure_cost.py

Random weights; thinning takes half of the channels of every group that can go. Each network has a process of its own,
which has traced a small network before, so that imports and first calls do not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from common import machine, table
from torch import Tensor, nn

import nets
from pocketprune.graph.tracing import trace
from pocketprune.structure.channel_groups import resolve
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.recipes import recipe_for
from pocketprune.thinning.removal import thin

HEAD = ["network", "nodes", "groups", "trace, s", "group, s", "check, s", "thin, s", "total, s", "peak memory, MB"]


class EncoderBlock(nn.Module):
    """Pre-norm attention with packed queries, keys and values, and an MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """ViT-B/16 (Dosovitskiy et al. 2021, table 1): 12 layers of width 768 and 12 heads, patches of 16x16."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, width, 16, 16), nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class SyntheticBlock(nn.Module):
    """15 nodes: squeeze and excite on a residual branch whose halves change places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.bn1(self.conv1(x)).chunk(2, 1)
        y = self.bn2(self.conv2(torch.cat([second, first], 1).relu()))
        return x + y * self.up(self.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Synthetic(nn.Module):
    """As many blocks as make a graph of about so many nodes, the width doubled twice on the way."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for c_in, width in ((3, 32), (32, 64), (64, 128)):
            stages += [nn.Conv2d(c_in, width, 3, 2, 1), *(SyntheticBlock(width) for _ in range(round(nodes / 3 / 16)))]
        self.stages, self.fc = nn.Sequential(*stages), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(x).mean((2, 3)))


def imagenet_resnet(size: int) -> nn.Module:
    return nets.create_net("resnet_imagenet", num_classes=1000, input_shape=(3, 224, 224), resnet_size=size)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-18": (lambda: imagenet_resnet(18), 224),
    "ResNet-50": (lambda: imagenet_resnet(50), 224),
    "ViT-B/16": (VisionTransformer, 224),
    "synthetic 375": (lambda: Synthetic(375), 64),
    "synthetic 750": (lambda: Synthetic(750), 64),
    "synthetic 1500": (lambda: Synthetic(1500), 64),
}
"""Name -> constructor and side of the input."""


def peak() -> float:
    """The most memory this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measured(name: str, batch: int, threads: int) -> list[object]:
    """One row of the table."""
    torch.set_num_threads(threads)
    costs(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval(), 8, batch)
    build, side = NETWORKS[name]
    torch.manual_seed(0)
    net = build().eval()
    before = peak()
    nodes, groups, seconds = costs(net, side, batch)
    return [name, nodes, groups, *(f"{s:.1f}" for s in (*seconds, sum(seconds))), f"{peak() - before:.0f}"]


def costs(net: nn.Module, side: int, batch: int) -> tuple[int, int, list[float]]:
    """Nodes, prunable groups, and the seconds of tracing, grouping, checking and thinning."""
    times = [time.perf_counter()]
    traced = trace(net, torch.randn(batch, 3, side, side))
    times.append(time.perf_counter())
    structure = resolve(traced)
    times.append(time.perf_counter())
    check_groups(structure, traced.example)
    times.append(time.perf_counter())
    prunable = [group for group in structure.groups if group.prunable]
    thin(structure, recipe_for(structure, {g.name: range(0, g.size, 2) for g in prunable}))
    times.append(time.perf_counter())
    return len(traced.call_nodes()), len(prunable), [b - a for a, b in pairwise(times)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=2, help="example inputs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    flags = arguments()
    rows = []
    for name in flags.networks:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (name, flags.batch, flags.threads)))
        print("| " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    torch.set_num_threads(flags.threads)
    print("\n" + table(HEAD, rows))
    print(f"\nBatches of {flags.batch}; peak memory above the network and its process; {machine()}")


if __name__ == "__main__":
    main()
