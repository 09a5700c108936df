"""What pruning costs at ImageNet's size: seconds against the floor, and memory beside the images.

    python benchmarks/imagenet_size.py --images 256

Networks of `nets/` with random weights on images of noise, 3 x 224 x 224: what pruning costs depends on neither. The
floor is three forward passes over the images plus the Gram products of the sampled positions, measured in the same run.
Seconds are processor seconds of one thread, which neighbours on the machine hardly change. A small network is pruned
first, so that what Python imports at the first pruning is not counted. Every network is pruned in a process of its own,
so that its peak memory can be told.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import torch
from common import machine, table
from torch import Tensor, nn

import nets
import pocketprune

NETWORKS = {"ResNet-50": ("resnet_imagenet", 50), "VGG-16": ("vgg16_bn", None), "MobileNet-v2": ("mobilenet_v2", None)}
HEAD = ["network", "GMACs", "images", "prune s", "floor s", "times the floor", "GiB beside images and network"]


def network(name: str) -> nn.Module:
    """A network of ImageNet's size with random weights; a dense one in its classifier, as VGG-16 has."""
    torch.manual_seed(0)
    kind, size = NETWORKS[name]
    net = nets.create_net(kind, num_classes=1000, input_shape=(3, 224, 224), resnet_size=size)
    return net.eval()


@torch.no_grad()
def forward_seconds(net: nn.Module, batches: list[Tensor]) -> float:
    start = time.process_time()
    for batch in batches:
        net(batch)
    return time.process_time() - start


def gram_seconds(net: nn.Module, images: int, points: int) -> float:
    """Seconds of the products X'X and X'Y of every convolution and linear layer on the sampled positions."""
    shapes = [(m.weight[0].numel(), m.weight.shape[0]) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    total, known = 0.0, {}
    for d, n in shapes:
        if (d, n) not in known:
            x, y = torch.randn(images * points, d), torch.randn(images * points, n)
            start = time.process_time()
            torch.mm(x.T, x), torch.mm(x.T, y)
            known[d, n] = time.process_time() - start
        total += known[d, n]
    return total


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name: str, images: int, points: int, cache_gb: float) -> list[object]:
    """One row of the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pocketprune.PruningWarning)  # random weights promise nothing
    net = network(name)
    batches = list(torch.randn(images, 3, 224, 224).split(16))
    net(batches[0])
    pocketprune.prune_channels(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), batches[:1], 0.5)
    before, forward = peak(), forward_seconds(net, batches)
    options = pocketprune.PruningOptions(points_per_layer=points, cache_gb=cache_gb)
    start = time.process_time()
    result = pocketprune.prune_channels(net, batches, 0.5, options=options)
    took, above = time.process_time() - start, peak() - before
    floor = 3 * (forward + forward_seconds(net, batches)) / 2 + gram_seconds(net, images, points)
    macs = f"{result.dense_macs / 1e9:.2f} -> {result.macs / 1e9:.2f}"
    return [name, macs, images, f"{took:.0f}", f"{floor:.0f}", f"{took / floor:.2f}", f"{above:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256], help="calibration images, a row each")
    parser.add_argument("--points", type=int, default=10, help="positions per image and layer")
    parser.add_argument("--cache_gb", type=float, default=pocketprune.PruningOptions().cache_gb)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.row:
        print(json.dumps(measure(flags.row[0], int(flags.row[1]), flags.points, flags.cache_gb)))
        return
    rows = []
    for name in flags.networks:
        for images in flags.images:
            options = ["--points", str(flags.points), "--cache_gb", str(flags.cache_gb)]
            command = [sys.executable, __file__, "--row", name, str(images), *options]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
            print(rows[-1], file=sys.stderr, flush=True)
    print(f"{table(HEAD, rows)}\n\n{machine()}")


if __name__ == "__main__":
    main()
