"""Lottery tickets of a 300-100 MLP on the digits: accuracy against sparsity, round by round, random tickets beside it.

python benchmarks/lottery.py --results lottery.jsonl --draw lottery.png
python benchmarks/lottery.py --results lottery.jsonl --table

Seeds already in the file are not measured again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import append_row, machine, saved_rows, spread, table
from torch import nn

import datasets
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.lottery import Snapshot, control, round_levels, ticket
from pocketprune.sparsity.policy import SparsityPolicy
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.state import TrainSettings


def rounds(flags: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return a row for each round."""
    data = datasets.create_dataset("digits", data_dir="data", seed=seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    settings = TrainSettings(epochs=flags.epochs, optimizer="adam", lrn_rate=0.0012, batch_size=60, seed=seed)
    policy = SparsityPolicy.from_dict({"seed": seed})
    snapshot = Snapshot(net)
    rows = []

    def trained(of: nn.Module, callbacks: list[Any]) -> float:
        train(of, data.train, settings, callbacks=callbacks, progress=False)
        return float(evaluate(of, data.test, 360, progress=False).accuracy)

    rows.append({"round": 0, "level": 0.0, "seed": seed, "ticket": trained(net, [snapshot]), "random": None})
    for number, level in enumerate(round_levels(0.99, flags.rounds), start=1):
        controller = ticket(net, snapshot.taken, policy, level)
        found = trained(net, [SparsityCallback(controller)])
        controller.detach()
        other = copy.deepcopy(net)
        chance = ticket(other, snapshot.taken, control(policy, number), level)
        by_chance = trained(other, [SparsityCallback(chance)])
        rows.append({"round": number, "level": level, "seed": seed, "ticket": found, "random": by_chance})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of a file."""
    head = ["weights masked", "ticket", "random ticket", "seeds"]
    at = {level: [row for row in rows if row["level"] == level] for level in sorted({row["level"] for row in rows})}
    body = [
        [f"{level:.1%}", spread([row["ticket"] for row in own]), spread([row["random"] for row in own]), len(own)]
        for level, own in at.items()
    ]
    print(f"{table(head, body)}\n\n{machine()}")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("lottery.jsonl"), help="file that rows are appended to")
    parser.add_argument("--draw", type=Path, default=None, help="picture of the rounds")
    parser.add_argument("--table", action="store_true", help="only print the table of --results")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    done = {row["seed"] for row in saved_rows(flags.results)}
    for seed in flags.seeds:
        for row in rounds(flags, seed) if seed not in done and not flags.table else ():
            append_row(flags.results, row)
    show(saved_rows(flags.results))
    if flags.draw is not None:
        draw(saved_rows(flags.results), flags.draw)


if __name__ == "__main__":
    main()
