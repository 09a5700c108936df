"""Shared inputs at equal latency: sample, couple or keep, each searched under one budget of milliseconds.

    python benchmarks/shared_inputs.py --data_dir data --init_checkpoint resnet20.pt --results shared.jsonl

Accuracy is that of the pruned network before any fine-tuning, on test images. Latencies are those of whole networks,
dense and pruned in turn. Each row is appended to --results as it comes; rows already there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from common import arguments, calibration, cifar10, cifar_resnet, machine, subset, table

import pocketprune
from pocketprune.channel_pruning.searching.ratios import latency_share
from pocketprune.search import Budget
from pocketprune.structure.layers import SHARED_INPUTS
from pocketprune.training.metrics import evaluate

HEAD = ("latency asked", "shared inputs", "latency", "MACs", "samplers", "accuracy", "search s")


def row(flags: argparse.Namespace, share: float, mode: str) -> dict[str, Any]:
    data, net = cifar10(flags.data_dir, seed=flags.seed), cifar_resnet(flags.resnet_size, flags.init_checkpoint)
    batches = calibration(data, flags.images, batch=flags.batch, seed=flags.seed)
    held_out = [x for x, _ in islice(data.val.batches(100, seed=flags.seed, shuffle=True), flags.held_out // 100)]
    options = pocketprune.PruningOptions(shared_input=mode, selection="obs", seed=flags.seed)
    start = time.process_time()
    found = pocketprune.search_ratios(
        net, batches, Budget("latency", share), held_out, method=flags.search, options=options
    )
    seconds = time.process_time() - start
    pruned = pocketprune.prune_channels(net, batches, found.ratios, options=options).net.eval()
    test = subset(data.test, flags.test, flags.seed)
    return {
        "asked": share,
        "mode": mode,
        "seed": flags.seed,
        "latency": latency_share(pruned, net, batches[0]),
        "macs": pocketprune.count_macs(pruned, batches[0][:2]) / pocketprune.count_macs(net, batches[0][:2]),
        "samplers": sum(name.endswith(".sampled") for name, _ in pruned.named_buffers()),
        "accuracy": evaluate(pruned, test, 500, progress=False).accuracy,
        "dense": evaluate(net, test, 500, progress=False).accuracy,
        "seconds": seconds,
    }


def cells(row: dict[str, Any]) -> tuple[object, ...]:
    figures = [f"{row[name]:.1%}" for name in ("latency", "macs")]
    return (
        f"{row['asked']:.0%}",
        row["mode"],
        *figures,
        row["samplers"],
        f"{row['accuracy']:.2%}",
        f"{row['seconds']:.0f}",
    )


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--images", type=int, default=1280, help="calibration images")
    parser.add_argument("--batch", type=int, default=128, help="images in the batch that is timed")
    parser.add_argument("--held_out", type=int, default=500, help="held-out images that compare networks")
    parser.add_argument("--test", type=int, default=2000, help="test images")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5], help="of the dense network's latency")
    parser.add_argument("--modes", nargs="+", choices=SHARED_INPUTS, default=SHARED_INPUTS)
    parser.add_argument("--search", default="curvature")
    parser.add_argument("--results", type=Path, required=True)
    flags = parser.parse_args()
    warnings.simplefilter("ignore", pocketprune.PruningWarning)  # a budget that is missed is seen in the table
    rows = [json.loads(line) for line in flags.results.read_text().splitlines()] if flags.results.exists() else []
    for share in flags.shares:
        for mode in flags.modes:
            if (share, mode, flags.seed) not in [(r["asked"], r["mode"], r["seed"]) for r in rows]:
                rows.append(row(flags, share, mode))
                with flags.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    shown = [cells(r) for r in rows]
    print(f"{table(HEAD, shown)}\n\n{machine()}")


if __name__ == "__main__":
    main()
