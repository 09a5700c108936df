"""Filter pruning while training: each criterion at once and by a schedule, before and after fine-tuning.

python benchmarks/filter_pruning.py --data_dir data --init_checkpoint resnet20.pt

Rows of one network, at the same share of the MACs and with the same epochs. "at once" masks, removes and then trains
what is left; a schedule trains with masks, adapts batch-norm statistics, and removes. "refit" is the closed form after
the removal. The rows of --learner channel are pruned by reconstruction, and trained alike.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

from common import arguments, cifar10, cifar_resnet, machine, table
from torch import Tensor, nn

import pocketprune
from pocketprune.compression.callback import callback
from pocketprune.compression.questions import PARTS
from pocketprune.training.batch_norm import reestimate_batch_norm
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

HEAD = ["method", "criterion", "ranking", "aggregate", "seed", "MACs", "before fine-tuning", "after", "seconds"]
RAMP = 0.75  # share of the epochs in which a level rises


class Bench:
    """One network, its data and the dense accuracy."""

    def __init__(self, flags: argparse.Namespace, seed: int) -> None:
        self.flags, self.seed = flags, seed
        self.data = cifar10(flags.data_dir, flags.device, seed)
        self.dense = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
        self.batches = self._labelled(flags.images)
        self.example = self.batches[0][0][:2]
        self.macs = pocketprune.count_macs(self.dense, self.example)

    def _labelled(self, images: int) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        for x, labels in self.data.train.batches(128, seed=self.seed, shuffle=True):
            left = images - sum(len(y) for _, y in found)
            if left <= 0:
                break
            found.append((x[:left], labels[:left]))
        return found

    @property
    def images(self) -> list[Tensor]:
        return [x for x, _ in self.batches]

    def accuracy(self, net: nn.Module) -> float:
        return float(evaluate(net, self.data.test, 500, progress=False).accuracy)

    def tune(self, net: nn.Module, **more: Any) -> None:
        flags = self.flags
        if flags.epochs > 0:
            settings = TrainSettings(
                epochs=flags.epochs, optimizer="adam", lrn_rate=flags.lrn_rate, schedule=Cosine(0.1), weight_decay=0.0,
                seed=self.seed, amp=flags.amp, channels_last=flags.device == "cpu" or flags.amp == "bf16",
            )  # fmt: skip
            train(net, self.data.train, settings, progress=False, **more)

    def controller(self, net: nn.Module, schedule: str, options: dict[str, Any]) -> pocketprune.Controller:
        steps = max(1, math.ceil(RAMP * math.ceil(self.flags.epochs)))
        level = {"name": schedule, "target": 1 - self.flags.macs, "steps": steps}
        policy = {"share_of": "macs", "schedule": level, "seed": self.seed, **options}
        return pocketprune.compress(net, self.example, policy, self.batches)

    def at_once(self, options: dict[str, Any], refit: bool) -> tuple[nn.Module, float]:
        """Return the network after its training, and its accuracy before."""
        net = copy.deepcopy(self.dense)
        controller = self.controller(net, "one_shot", options)
        controller.set_levels([1 - self.flags.macs])
        smaller = controller.remove(refit=self.images) if refit else controller.remove(adapt=self.images)
        before = self.accuracy(smaller)
        self.tune(smaller)
        return smaller, before

    def by_schedule(self, name: str, options: dict[str, Any]) -> tuple[nn.Module, float]:
        """Return the network trained with masks, then thinned; there is nothing before the training."""
        net = copy.deepcopy(self.dense)
        controller = self.controller(net, name, options)
        self.tune(net, callbacks=[callback(controller)])
        reestimate_batch_norm(net, self.images)
        return controller.remove(), math.nan

    def channel(self, selection: str) -> tuple[nn.Module, float]:
        """Return the network pruned by reconstruction after its training, and its accuracy before."""
        options = pocketprune.PruningOptions(
            selection=selection, shared_input="keep", points_per_layer=0, seed=self.seed
        )
        target = pocketprune.MacsShare(self.flags.macs)
        net = pocketprune.prune_channels(self.dense, self.images, target, options=options).net
        before = self.accuracy(net)
        self.tune(net)
        return net, before


def measure(bench: Bench, method: str, criterion: str, ranking: str, aggregate: str) -> dict[str, Any]:
    """Return one row."""
    began = time.perf_counter()
    options = {"criterion": criterion, "ranking": ranking, "aggregate": aggregate}
    if method == "channel":
        net, before = bench.channel(criterion)
    elif method in ("at_once", "refit"):
        net, before = bench.at_once(options, method == "refit")
    else:
        net, before = bench.by_schedule(method, options)
    return {
        "method": method,
        **options,
        "seed": bench.seed,
        "macs": pocketprune.count_macs(net, bench.example) / bench.macs,
        "before": before,
        "after": bench.accuracy(net),
        "seconds": time.perf_counter() - began,
        "flags": vars(bench.flags),
    }


def shown(row: dict[str, Any]) -> list[str]:
    before = "" if math.isnan(row["before"]) else f"{row['before']:.2%}"
    names = [str(row[name]) for name in ("method", "criterion", "ranking", "aggregate", "seed")]
    return [*names, f"{row['macs']:.1%}", before, f"{row['after']:.2%}", f"{row['seconds']:.0f}"]


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    accepted = [name for name in PARTS if name not in ("lasso", "obs", "magnitude")]
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that stays")
    parser.add_argument("--criteria", nargs="*", choices=accepted, default=accepted)
    parser.add_argument(
        "--methods",
        nargs="*",
        default=["at_once", "refit", "exponential"],
        help="at_once, refit (at once, with the closed form), or the names of schedules",
    )
    parser.add_argument("--rankings", nargs="*", choices=("group", "global"), default=["group", "global"])
    parser.add_argument("--aggregates", nargs="*", choices=("sum", "leader", "mean", "max"), default=["sum"])
    parser.add_argument("--channel", nargs="*", default=["obs"], help="selections of --learner channel beside them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="used in place of --seed")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--lrn_rate", type=float, default=0.002)
    parser.add_argument("--images", type=int, default=2000, help="for criteria, statistics and the closed form")
    parser.add_argument("--amp", default="off", choices=("off", "bf16"))
    parser.add_argument("--results", type=Path, default=None, help="file that rows are appended to")
    return parser.parse_args()


def wanted(flags: argparse.Namespace) -> list[tuple[str, str, str, str]]:
    """Return (method, criterion, ranking, aggregate) of every row of one seed."""
    rows = [
        (method, criterion, ranking, aggregate)
        for criterion in flags.criteria
        for method in flags.methods
        for ranking in flags.rankings
        for aggregate in flags.aggregates
    ]
    return [*rows, *(("channel", selection, "", "") for selection in flags.channel)]


def main() -> None:
    flags, rows = flags_of(), []
    for seed in flags.seeds:
        bench = Bench(flags, seed)
        for names in wanted(flags):
            rows.append(measure(bench, *names))
            print(table(HEAD, [shown(rows[-1])]).splitlines()[-1], flush=True)
            if flags.results is not None:
                with flags.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1], default=str) + "\n")
    print(table(HEAD, [["dense", "", "", "", "", "100 %", "", f"{bench.accuracy(bench.dense):.2%}", ""]]))
    print("\n".join(table(HEAD, list(map(shown, rows))).splitlines()[2:]))
    print(f"\nResNet-{flags.resnet_size}, CIFAR-10, {flags.epochs:g} epochs; {machine(flags.device)}")


if __name__ == "__main__":
    main()
