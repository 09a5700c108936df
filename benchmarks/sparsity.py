"""Sparse weights: each method at each level, before and after fine-tuning.

python benchmarks/sparsity.py --data_dir data --init_checkpoint resnet20.pt --results sparsity.jsonl
python benchmarks/sparsity.py --lottery_figure --results lottery.jsonl     a 300-100 MLP on the digits, round by round
python benchmarks/sparsity.py --table --results sparsity.jsonl

Rows of one network, all with the same epochs. "level" masks by magnitude at once and trains what stays; "agp" raises
the level over three quarters of the epochs; "obs" masks and refits in closed form and then trains; "admm" spends half
of the epochs on being pulled to sparse weights; "lottery" rewinds to the network given, in two rounds of half the
epochs.
Rows already in the file are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from common import arguments, cifar10, cifar_resnet, machine, table
from torch import Tensor, nn

import datasets
from pocketprune.numerics.projections import SparseSet
from pocketprune.numerics.weight_patterns import Pattern
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.lottery import Snapshot, control, round_levels, ticket
from pocketprune.sparsity.policy import SparsityPolicy
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

METHODS = ("level", "agp", "obs", "admm", "lottery")
LEVELS = ("0.5", "0.8", "0.9", "0.95", "2:4")
KEY = ("method", "level", "seed")


class Part:
    """The first images of a split, as a split."""

    def __init__(self, split: Any, count: int) -> None:
        self._split, self._count = copy.copy(split), min(count, len(split))
        self._split.images, self._split.labels = split.images[: self._count], split.labels[: self._count]

    def __len__(self) -> int:
        return self._count

    def batches(self, *sizes: int, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return self._split.batches(*sizes, **options)


class Bench:
    """The trained network, its images, and how it is trained."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        data = cifar10(flags.data_dir, flags.device, 0)
        self.train, self.test = Part(data.train, flags.images), Part(data.test, flags.test_images)
        self.dense = cifar_resnet(20, flags.init_checkpoint, flags.device)
        self.seen = [x for x, _ in self.train.batches(128, seed=0, shuffle=True)][: flags.closed_form_batches]

    def accuracy(self, net: nn.Module) -> float:
        return float(evaluate(net, self.test, 500, progress=False).accuracy)

    def settings(self, share: float, seed: int) -> TrainSettings:
        return TrainSettings(
            epochs=self.flags.epochs * share, optimizer="adam", lrn_rate=self.flags.lrn_rate, schedule=Cosine(0.1),
            weight_decay=0.0, seed=seed, channels_last=True,
        )  # fmt: skip

    def fit(self, net: nn.Module, seed: int, share: float = 1.0, **more: Any) -> None:
        train(net, self.train, self.settings(share, seed), progress=False, **more)

    def controller(self, net: nn.Module, level: str, criterion: str, schedule: str = "one_shot") -> SparsityController:
        pattern = level if ":" in level else "unstructured"
        share = Pattern.parse(level).largest_level if ":" in level else float(level)
        steps = max(1, math.ceil(0.75 * self.flags.epochs * math.ceil(len(self.train) / 128)))
        ramp = {"name": schedule, "target": share, "steps": steps, "unit": "step", "frequency": max(1, steps // 8)}
        given = {"pattern": pattern, "criterion": criterion, "schedule": {"name": schedule, "target": share}}
        # a first convolution of 3 inputs fits no n:m
        policy = {**given, "ignore": ["conv1"] if ":" in level else []}
        if schedule != "one_shot":
            policy["schedule"] = {**ramp, "freeze": steps + ramp["frequency"]}
        return sparsify(net, policy, self.seen[0][:2], self.seen)


def masked_at_once(bench: Bench, level: str, seed: int, criterion: str) -> tuple[nn.Module, float]:
    net = copy.deepcopy(bench.dense)
    controller = bench.controller(net, level, criterion)
    controller.set_levels([rule.schedule.final for rule in controller.policy.rules])
    controller.freeze()
    before = bench.accuracy(net)
    bench.fit(net, seed, callbacks=[SparsityCallback(controller)])
    return net, before


def by_schedule(bench: Bench, level: str, seed: int) -> tuple[nn.Module, float]:
    net = copy.deepcopy(bench.dense)
    controller = bench.controller(net, level, "magnitude", "agp")
    bench.fit(net, seed, callbacks=[SparsityCallback(controller)])
    return net, math.nan


def pulled(bench: Bench, level: str, seed: int) -> tuple[nn.Module, float]:
    net = copy.deepcopy(bench.dense)
    controller = bench.controller(net, level, "magnitude")
    rule = controller.policy.rules[0]
    sets = {name: SparseSet("weights", rule.schedule.final, rule.shape) for name in controller.layers[0]}
    admm = Admm(net, sets, AdmmSettings(rounds=bench.flags.rounds, rho=bench.flags.rho))
    bench.fit(net, seed, 0.5, callbacks=[admm])
    controller.impose(admm.masked(), bench.seen)
    before = bench.accuracy(net)
    bench.fit(net, seed, 0.5, callbacks=[SparsityCallback(controller)])
    return net, before


def drawn(bench: Bench, level: str, seed: int) -> tuple[nn.Module, float]:
    net = copy.deepcopy(bench.dense)
    first = bench.controller(net, level, "magnitude")
    policy, target = first.policy, first.policy.rules[0].schedule.final
    first.detach()
    taken = {name: tensor.clone() for name, tensor in bench.dense.state_dict().items()}
    before = math.nan
    for share in round_levels(target, 2):
        controller = ticket(net, taken, policy, share)
        before = bench.accuracy(net)
        bench.fit(net, seed, 0.5, callbacks=[SparsityCallback(controller)])
        controller.detach()
    return net, before


def measure(bench: Bench, method: str, level: str, seed: int) -> dict[str, Any]:
    """Return one row."""
    began = time.perf_counter()
    ways = {
        "level": lambda: masked_at_once(bench, level, seed, "magnitude"),
        "obs": lambda: masked_at_once(bench, level, seed, "obs"),
        "agp": lambda: by_schedule(bench, level, seed),
        "admm": lambda: pulled(bench, level, seed),
        "lottery": lambda: drawn(bench, level, seed),
    }
    net, before = ways[method]()
    zeros = {n: float((m.weight == 0).float().mean()) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    return {
        "method": method,
        "level": level,
        "seed": seed,
        "before": None if math.isnan(before) else before,
        "after": bench.accuracy(net),
        "least_zeros": min(zeros.values()),
        "seconds": time.perf_counter() - began,
        "flags": {name: str(value) for name, value in vars(bench.flags).items()},
    }


def figure_row(flags: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return a row for each round of a lottery of a 300-100 MLP on the digits, random tickets beside it."""
    data = datasets.create_dataset("digits", data_dir="data", seed=seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    settings = TrainSettings(epochs=flags.mlp_epochs, optimizer="adam", lrn_rate=0.0012, batch_size=60, seed=seed)
    policy = SparsityPolicy.from_dict({"seed": seed})
    snapshot = Snapshot(net)
    rows = []

    def trained(of: nn.Module, callbacks: list[Any]) -> float:
        train(of, data.train, settings, callbacks=callbacks, progress=False)
        return float(evaluate(of, data.test, 360, progress=False).accuracy)

    rows.append({"round": 0, "level": 0.0, "seed": seed, "ticket": trained(net, [snapshot]), "random": None})
    for number, level in enumerate(round_levels(0.99, flags.mlp_rounds), start=1):
        controller = ticket(net, snapshot.taken, policy, level)
        found = trained(net, [SparsityCallback(controller)])
        controller.detach()
        other = copy.deepcopy(net)
        chance = ticket(other, snapshot.taken, control(policy, number), level)
        by_chance = trained(other, [SparsityCallback(chance)])
        rows.append({"round": number, "level": level, "seed": seed, "ticket": found, "random": by_chance})
    return rows


def known(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print({name: row[name] for name in row if name != "flags"}, flush=True)


def cell(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return ""
    spread = f" ± {100 * stdev(found):.2f}" if len(found) > 1 else ""
    return f"{100 * mean(found):.2f}{spread}"


def show(rows: list[dict[str, Any]]) -> None:
    """Print the tables of a file."""
    if rows and "ticket" in rows[0]:
        head = ["weights masked", "ticket", "random ticket", "seeds"]
        levels = sorted({row["level"] for row in rows})
        at = {level: [row for row in rows if row["level"] == level] for level in levels}
        print(table(head, [[f"{level:.1%}", cell([r["ticket"] for r in at[level]]),
                            cell([r["random"] for r in at[level]]), len(at[level])] for level in levels]))  # fmt: skip
        return
    head = ["level", "method", "before fine-tuning", "after", "seeds", "seconds"]
    body = []
    for level in LEVELS:
        for method in METHODS:
            own = [row for row in rows if (row["level"], row["method"]) == (level, method)]
            if own:
                seconds = f"{mean(row['seconds'] for row in own):.0f}"
                body.append([level, method, cell([r["before"] for r in own]), cell([r["after"] for r in own]),
                             len(own), seconds])  # fmt: skip
    print(table(head, body))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against sparsity, round by round: tickets and random ones, the mean and the range of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    levels = sorted({row["level"] for row in rows})
    for kind, title in (("ticket", "ticket"), ("random", "random ticket")):
        found = [[100 * r[kind] for r in rows if r["level"] == level and r[kind] is not None] for level in levels]
        shown = [(100 * (1 - level), values) for level, values in zip(levels, found, strict=True) if values]
        left = [x for x, _ in shown]
        axes.plot(left, [mean(values) for _, values in shown], marker="o", label=title)
        axes.fill_between(left, [min(v) for _, v in shown], [max(v) for _, v in shown], alpha=0.2)
    axes.set(xscale="log", xlabel="weights left, %", ylabel="accuracy, %")
    axes.invert_xaxis()
    axes.legend()
    figure.savefig(path, dpi=110)


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--levels", nargs="*", choices=LEVELS, default=LEVELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="used in place of --seed")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--images", type=int, default=5000, help="of the training split")
    parser.add_argument("--test_images", type=int, default=10000)
    parser.add_argument("--lrn_rate", type=float, default=0.002)
    parser.add_argument("--closed_form_batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8, help="of ADMM")
    parser.add_argument("--rho", type=float, default=0.01, help="of ADMM")
    parser.add_argument("--lottery_figure", action="store_true")
    parser.add_argument("--mlp_epochs", type=float, default=15)
    parser.add_argument("--mlp_rounds", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("sparsity.jsonl"), help="file that rows are appended to")
    parser.add_argument("--draw", type=Path, default=None, help="picture of the lottery's rounds")
    parser.add_argument("--table", action="store_true", help="only print the tables of --results")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    if not flags.table and flags.lottery_figure:
        for seed in flags.seeds:
            for row in figure_row(flags, seed) if seed not in {r["seed"] for r in known(flags.results)} else ():
                keep(flags.results, row)
    elif not flags.table:
        bench = Bench(flags)
        print(f"dense {bench.accuracy(bench.dense):.2%}; {machine(flags.device)}", flush=True)
        for seed in flags.seeds:
            for level in flags.levels:
                for method in flags.methods:
                    done = {tuple(row[name] for name in KEY) for row in known(flags.results)}
                    if (method, level, seed) not in done:
                        keep(flags.results, measure(bench, method, level, seed))
    show(known(flags.results))
    if flags.draw is not None:
        draw(known(flags.results), flags.draw)


if __name__ == "__main__":
    main()
