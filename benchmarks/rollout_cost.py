"""What a roll-out of a search costs, against the bare evaluation of the same thinned network on the same images.

python benchmarks/rollout_cost.py --data_dir data --resnet_size 56 --init_checkpoint resnet56.pt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from statistics import median

import torch
from common import arguments, calibration, cifar10, cifar_resnet, machine, table

import pocketprune
from pocketprune.channel_pruning.searching.environment import PruningEnvironment


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--images", type=int, default=640, help="calibration images")
    parser.add_argument("--held_out", type=int, nargs="+", default=[500, 2000], help="images that score a roll-out")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(flags: argparse.Namespace, held_out: int) -> list[str]:
    """One row: roll-outs with other counts each, every one in turn with the evaluation of its network."""
    data = cifar10(flags.data_dir, flags.device, flags.seed)
    net = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
    images = [x for x, _ in islice(data.val.batches(100), held_out // 100)]
    env = PruningEnvironment(
        net,
        calibration(data, flags.images),
        images,
        options=pocketprune.PruningOptions(shared_input="keep", seed=flags.seed),
    )

    def evaluated(thin: torch.nn.Module) -> None:
        with torch.inference_mode():
            for x in images:
                thin(x)

    found = []
    for turn in range(flags.rounds + 1):
        share = 0.4 + 0.2 * turn / flags.rounds
        counts = [min(v.allowed, key=lambda k, v=v: abs(k - share * v.full)) for v in env.variables]
        thin = env.thinned(counts)  # its weights are looked up from here on, as by most roll-outs of a search
        found.append((seconds(lambda: env.score(counts)), seconds(lambda: evaluated(thin))))  # noqa: B023
    rollout, evaluation = (median(times) for times in zip(*found[1:], strict=True))
    ratio = median(a / b for a, b in found[1:])
    return [str(held_out), f"{rollout:.2f}", f"{evaluation:.2f}", f"{ratio:.2f}"]


def main() -> None:
    flags = parsed()
    rows = [measure(flags, held_out) for held_out in flags.held_out]
    print(table(["held-out images", "roll-out, s", "evaluation, s", "ratio"], rows))
    print(f"\nResNet-{flags.resnet_size}, CIFAR-10, about half of the MACs; {machine(flags.device)}")


if __name__ == "__main__":
    main()
