"""Filter pruning while training: criteria, rankings and schedules at one share of the MACs, beside other ways.

python benchmarks/filter_pruning.py --data_dir data --init_checkpoint resnet20.pt --results rows.jsonl
python benchmarks/filter_pruning.py --results rows.jsonl --table

All rows of one network train equally long on the same images. "at once" masks, removes and then trains what is left; a
schedule trains with masks, adapts batch-norm statistics and removes. "refit" is the closed form after the removal.
Rows "inside" leave residual streams whole, which is all that Torch-Pruning can do on this network, and what
--learner channel does by default. A row is appended to the file when it is finished; a run that is started again
leaves out the rows that the file has. The most telling rows come first, each for all seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from common import arguments, cifar10, cifar_resnet, machine, subset, table
from filter_rows import UNTRAINED, Row, telling, wider
from torch import nn
from torch_pruning_side import is_installed, pruned_by_torch_pruning

import pocketprune
from pocketprune.compression.callback import callback
from pocketprune.compression.learned import Evolution, learn_ranking
from pocketprune.training.batch_norm import reestimate_batch_norm
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

STREAMS = ("conv1", "layer*.conv2")  # what writes the residual streams of a ResNet
RAMP, INIT = 0.75, 0.2  # share of the epochs in which a level rises, and where it starts
JUDGED, ADAPTED = 500, 256  # images on which a candidate of the learned ranking is judged, and adapted before
ONE_RESULT = ("resnet_size", "macs", "epochs", "lrn_rate", "images", "limit_train", "limit_test", "amp")
HEAD = ["method", "criterion", "ranking", "members", "groups", "seeds", "MACs", "before fine-tuning", "after"]


class Bench:
    """One network, its data and one seed."""

    def __init__(self, flags: argparse.Namespace, seed: int) -> None:
        self.flags, self.seed = flags, seed
        data = cifar10(flags.data_dir, flags.device, seed)
        self.train, self.val = subset(data.train, flags.limit_train, seed), subset(data.val, JUDGED, seed)
        self.test = subset(data.test, flags.limit_test, 0)
        self.dense = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
        self.batches = list(subset(self.train, flags.images, seed).batches(128))
        self.images = [x for x, _ in self.batches]
        self.example = self.images[0][:2]
        self.macs = pocketprune.count_macs(self.dense, self.example)

    def accuracy(self, net: nn.Module) -> float:
        return float(evaluate(net, self.test, 500, progress=False).accuracy)

    def tune(self, net: nn.Module, **more: Any) -> None:
        flags = self.flags
        if not flags.epochs:
            return
        settings = TrainSettings(
            epochs=flags.epochs, optimizer="adam", lrn_rate=flags.lrn_rate, schedule=Cosine(0.1), weight_decay=0.0,
            seed=self.seed, amp=flags.amp, channels_last=True,
        )  # fmt: skip
        train(net, self.train, settings, progress=False, **more)

    def controller(self, net: nn.Module, row: Row, schedule: str) -> pocketprune.Controller:
        steps = max(1, math.ceil(RAMP * math.ceil(self.flags.epochs)))
        options = {"criterion": row.criterion, "ranking": row.ranking, "aggregate": row.aggregate}
        level = {"name": schedule, "init": INIT, "target": 1 - self.flags.macs, "steps": steps}
        left_alone = {"ignore": STREAMS} if row.groups == "inside" else {}
        policy = {"share_of": "macs", "schedule": level, "seed": self.seed, **options, **left_alone}
        controller = pocketprune.compress(net, self.example, policy, self.batches)
        if row.ranking == "learned":
            learn_ranking(controller, self._judged, Evolution(generations=self.flags.generations, seed=self.seed))
        return controller

    def _judged(self, net: nn.Module) -> float:
        reestimate_batch_norm(net, [x[:ADAPTED] for x in self.images[: ADAPTED // 128]])
        return -float(evaluate(net, self.val, JUDGED, progress=False).loss)

    def at_once(self, row: Row) -> nn.Module:
        net = copy.deepcopy(self.dense)
        controller = self.controller(net, row, "one_shot")
        controller.set_levels([1 - self.flags.macs])
        return controller.remove(refit=self.images) if row.method == "refit" else controller.remove(adapt=self.images)

    def by_schedule(self, row: Row) -> nn.Module:
        net = copy.deepcopy(self.dense)
        controller = self.controller(net, row, row.method)
        self.tune(net, callbacks=[callback(controller)])
        reestimate_batch_norm(net, self.images)
        return controller.remove()

    def channel(self, row: Row) -> nn.Module:
        shared = "keep" if row.groups == "inside" else "couple"
        options = pocketprune.PruningOptions(
            selection=row.criterion, shared_input=shared, points_per_layer=0, seed=self.seed
        )
        target = pocketprune.MacsShare(self.flags.macs)
        return pocketprune.prune_channels(self.dense, self.images, target, options=options).net

    def torch_pruning(self, row: Row) -> nn.Module:
        streams = [module for name, module in self.dense.named_modules() if name == "conv1" or name.endswith(".conv2")]
        net = pruned_by_torch_pruning(self.dense, streams, self.batches, row.criterion, self.flags.macs * self.macs)
        reestimate_batch_norm(net, self.images)  # ours: it has none, and is near chance without
        return net

    def measure(self, row: Row) -> dict[str, Any]:
        """Return what a row comes to."""
        began, before = time.process_time(), math.nan
        ways = {"at once": self.at_once, "refit": self.at_once, "channel": self.channel}
        ways |= {"Torch-Pruning": self.torch_pruning, "dense": lambda _: copy.deepcopy(self.dense)}
        if row.method in ways:
            net = ways[row.method](row)
            before = self.accuracy(net)
            self.tune(net)
        else:
            net = self.by_schedule(row)
        macs = pocketprune.count_macs(net, self.example) / self.macs
        seconds = time.process_time() - began
        return {"share": macs, "before": before, "after": self.accuracy(net), "cpu_seconds": seconds}


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that stays")
    parser.add_argument(
        "--rows", choices=("telling", "wider", "all"), default="all", help="the first ones, others, all"
    )
    parser.add_argument("--most", type=int, default=None, help="rows of this call; the next one goes on")
    parser.add_argument("--methods", nargs="*", default=[], help="only rows of these methods")
    parser.add_argument("--schedule", default="agp", help="the schedule of most rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="used in place of --seed")
    parser.add_argument("--epochs", type=float, default=4, help="0: only what is pruned at once, and not trained")
    parser.add_argument("--lrn_rate", type=float, default=0.0005)
    parser.add_argument("--images", type=int, default=1024, help="for criteria, statistics and the closed form")
    parser.add_argument("--limit-train", type=int, default=50000, help="training images of an epoch")
    parser.add_argument("--limit-test", type=int, default=10000, help="test images")
    parser.add_argument("--generations", type=int, default=64, help="candidates of the learned ranking")
    parser.add_argument("--amp", default="off", choices=("off", "bf16"))
    parser.add_argument("--results", type=Path, required=True, help="file that rows are appended to, and read from")
    parser.add_argument("--table", action="store_true", help="only show what the file has")
    return parser.parse_args()


def saved_rows(path: Path) -> list[dict[str, Any]]:
    """Return the finished rows; the last line may be half-written."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def identity(found: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells one finished row from others, but for the seed."""
    return tuple(found[name] for name in ("method", "criterion", "ranking", "aggregate", "groups", *ONE_RESULT))


def wanted(flags: argparse.Namespace) -> Iterator[tuple[Row, int]]:
    """Yield rows with seeds that the file does not have, in the order in which they are measured."""
    rows = {"telling": telling, "wider": wider, "all": lambda name: telling(name) + wider(name)}[flags.rows](
        flags.schedule
    )
    rows = [row for row in rows if flags.epochs or row.method in UNTRAINED]
    if not is_installed():
        print("Torch-Pruning is not installed here; its rows are left out (pip install torch-pruning)")
        rows = [row for row in rows if row.method != "Torch-Pruning"]
    done = {(identity(found), found["seed"]) for found in saved_rows(flags.results)}
    for row in rows:
        for seed in flags.seeds:
            known = (identity({**asdict(row), **vars(flags)}), seed) in done
            if not known and (not flags.methods or row.method in flags.methods):
                yield row, seed


def spread(values: list[float]) -> str:
    """Return the mean and, of several values, the deviation, in per cent."""
    if any(map(math.isnan, values)):
        return ""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table for each network and its settings, the rows with the best end first."""
    settings: dict[tuple[Any, ...], dict[tuple[Any, ...], list[dict[str, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        settings[identity(row)[5:]][identity(row)[:5]].append(row)
    for values, found in settings.items():
        ways = sorted(found.items(), key=lambda way: -statistics.mean(row["after"] for row in way[1]))
        lines = [
            [*names, len(each), *(spread([row[key] for row in each]) for key in ("share", "before", "after"))]
            for names, each in ways
        ]
        told = ", ".join(f"{name} {value}" for name, value in zip(ONE_RESULT, values, strict=True))
        print(f"{table(HEAD, lines)}\n\n{told}; {next(iter(found.values()))[0]['machine']}\n")


def main() -> None:
    flags, benches = flags_of(), {}
    for row, seed in islice(wanted(flags), 0 if flags.table else flags.most):
        bench = benches[seed] = benches.get(seed) or Bench(flags, seed)
        found = {**asdict(row), "seed": seed, **bench.measure(row), "machine": machine(flags.device)}
        found |= {name: getattr(flags, name) for name in ONE_RESULT}
        with flags.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(" ".join(map(str, list(found.values())[:10])), flush=True)
    show(saved_rows(flags.results))


if __name__ == "__main__":
    main()
