"""How long pruning takes: against depth, against explicit rows, with all positions, and against the floor.

    python benchmarks/pruning_speed.py --data_dir data --init_checkpoint resnet20.pt

The floor is what the pass cannot do without: three forward passes over the images plus the Gram products of all
positions, at the matrix-product rate measured on this machine in the same run.
"""

from __future__ import annotations

import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from common import arguments, calibration, cifar10, cifar_resnet, machine, table
from row_pipeline import prune_by_rows
from torch import Tensor, nn

import pocketprune

SECTIONS = ("depth", "rows", "all")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each, run in turn."""
    runs = [[seconds(work) for work in works] for _ in range(repeats)]
    return [statistics.median(run[i] for run in runs) for i in range(len(works))]


def inner(net: nn.Module) -> list[str]:
    """The second convolution of every block, which reads the block's inner width."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d) and name.endswith("conv2")]


def prune(net: nn.Module, batches: Sequence[Tensor], points: int, **options: object) -> pocketprune.PruneResult:
    return pocketprune.prune_channels(
        net, batches, 0.5, options=pocketprune.PruningOptions(shared_input="keep", points_per_layer=points, **options)
    )


def depth(flags: object) -> None:
    """ResNet-56 against ResNet-20 on the same images."""
    batches = calibration(cifar10(flags.data_dir), 1280)
    small, deep = cifar_resnet(20), cifar_resnet(56)
    short, long = medians(flags.repeats, lambda: prune(small, batches, 10), lambda: prune(deep, batches, 10))
    print(
        table(
            ["network", "seconds", "ratio"],
            [["ResNet-20", f"{short:.1f}", "1"], ["ResNet-56", f"{long:.1f}", f"{long / short:.2f}"]],
        )
    )


def rows(flags: object) -> None:
    """PocketFlow's sampling: 60 batches of 128, 10 points; ours and explicit rows in turn."""
    batches, net = calibration(cifar10(flags.data_dir), 60 * 128), cifar_resnet(20, flags.init_checkpoint)
    results: dict[str, object] = {}
    ours, theirs = medians(
        flags.repeats,
        lambda: results.__setitem__("ours", prune(net, batches, 10, refit="pruned", branch_drift=False)),
        lambda: results.__setitem__("rows", prune_by_rows(net, inner(net), batches, 0.5, 10)),
    )
    default = seconds(lambda: prune(net, batches, 10))
    errors = [layer.error_after for layer in results["ours"].layers if layer.kept < layer.channels]
    row_errors = list(results["rows"].values())
    print(
        table(
            ["60 x 128 images, 10 points", "seconds", "mean error", "largest error"],
            [
                ["moments, pruned layers refitted", f"{ours:.1f}", *_summary(errors)],
                ["explicit rows, LassoLars + LinearRegression", f"{theirs:.1f}", *_summary(row_errors)],
                ["moments, all layers refitted, branch drift (default)", f"{default:.1f}", "", ""],
            ],
        )
    )


def _summary(errors: Sequence[float]) -> list[str]:
    return [f"{statistics.mean(errors):.3f}", f"{max(errors):.3f}"]


def all_positions(flags: object) -> None:
    """All positions of the same images, in a process of its own so that its peak memory can be told."""
    batches, net = calibration(cifar10(flags.data_dir), 60 * 128), cifar_resnet(20, flags.init_checkpoint)
    prune(net, [batches[0]], 0)  # warm: imports, thread pools
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    processor = time.process_time()
    took = seconds(lambda: prune(net, batches, 0, cache_gb=flags.cache_gb))
    processor = time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    bottom, forward, gram = floor(net, batches)
    row_count = sum(len(b) for b in batches) * 32 * 32 / 1e6
    print(
        table(
            ["all positions", "value"],
            [
                ["rows a layer (32 x 32 maps)", f"{row_count:.1f} million"],
                ["seconds", f"{took:.1f}"],
                ["processor seconds, all threads", f"{processor:.1f}"],
                ["peak above the cached images", f"{peak - before:.2f} GiB"],
                ["floor: 3 forward passes + Gram products", f"{bottom:.1f} s ({forward:.1f} + {gram:.1f})"],
                ["time / floor", f"{took / bottom:.2f}"],
            ],
        )
    )


@torch.no_grad()
def floor(net: nn.Module, batches: Sequence[Tensor]) -> tuple[float, float, float]:
    """(total, forward, Gram) seconds: three passes as measured, products of d x d a row at the measured rate."""
    forward = 3 * seconds(lambda: [net(b) for b in batches])
    flops = 0
    shapes = {}
    hooks = [
        m.register_forward_hook(lambda m, a, out: shapes.__setitem__(m, out.shape))
        for m in net.modules()
        if isinstance(m, nn.Conv2d)
    ]
    net(batches[0])
    for hook in hooks:
        hook.remove()
    images = sum(len(b) for b in batches)
    for conv, shape in shapes.items():
        d, n = conv.weight[0].numel(), conv.out_channels
        flops += 2 * images * math.prod(shape[2:]) * d * (d + n)
    return forward + flops / rate(), forward, flops / rate()


def rate() -> float:
    """Floating-point operations a second of a product shaped like a Gram product (d = 288), median of several."""
    x = torch.randn(65536, 288)
    times = [seconds(lambda: x.T @ x) for _ in range(9)]
    return 2 * x.shape[0] * x.shape[1] ** 2 / statistics.median(times)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--section", choices=SECTIONS, default=None, help="one part only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache_gb", type=float, default=1.0, help="GiB of feature maps in memory, all positions")
    flags = parser.parse_args()
    if flags.section is None:
        for section in SECTIONS:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--section", section], check=True)
        print(f"\n{machine()}")
    else:
        {"depth": depth, "rows": rows, "all": all_positions}[flags.section](flags)


if __name__ == "__main__":
    main()
