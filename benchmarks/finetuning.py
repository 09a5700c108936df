"""Fine-tuning after pruning: PocketFlow's shortened schedule against the fitted recipe, every network on the digits.

    python benchmarks/finetuning.py --folder finetuning --results finetuning.jsonl

Each network is trained once, pruned to one preserve ratio, and fine-tuned for each share of its schedule by both
recipes. Rows are printed, and appended to --results, as they come; rows already there are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from common import calibration, machine, table
from torch import nn

import datasets
import nets
import pocketprune
from config import Config
from learners.train_settings import finetune_settings, train_settings
from pocketprune.common.errors import UserError
from pocketprune.training import Classification, Distillation, evaluate, train

RECIPES = ("pocketflow", "fitted")


class Bench:
    """One network: dense, pruned, and fine-tuned."""

    def __init__(self, flags: argparse.Namespace, name: str) -> None:
        self.flags, self.name = flags, name
        self.data = datasets.create_dataset("digits", seed=0)

    def config(self, *flags: str) -> Config:
        return Config.from_flags([f"--net={self.name}", *flags])

    def made(self) -> nn.Module:
        torch.manual_seed(0)
        return nets.create_net(self.name, num_classes=10, input_shape=self.data.input_shape)

    @cached_property
    def dense(self) -> nn.Module:
        net, path = self.made(), Path(self.flags.folder) / f"{self.name}.pt"
        if path.exists():
            net.load_state_dict(torch.load(path, weights_only=True))
        else:
            train(net, self.data.train, train_settings(self.config()), progress=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(net.state_dict(), path)
        return net.eval()

    @cached_property
    def pruned(self) -> nn.Module:
        return pocketprune.prune_channels(self.dense, calibration(self.data, 1294), self.flags.ratio).net

    def accuracy(self, net: nn.Module, split: datasets.Split) -> tuple[float, float]:
        found = evaluate(net, split, 360, progress=False)
        return found.accuracy, -found.loss

    def row(self, share: float, recipe: str, seed: int) -> dict[str, object]:
        """Fine-tune by one recipe. PocketFlow's ends with its last state, the fitted one with its best."""
        net = copy.deepcopy(self.pruned)
        settings = finetune_settings(self.config(f"--ft_recipe={recipe}", f"--seed={seed}"), share)
        objective = Distillation(Classification(), self.dense) if self.flags.distil else None
        judge = (lambda net: self.accuracy(net, self.data.val)) if recipe == "fitted" else None
        found = train(net, self.data.train, settings, objective=objective, judge=judge, progress=False)
        return {
            "net": self.name,
            "share": share,
            "recipe": recipe,
            "seed": seed,
            "distil": self.flags.distil,
            "ratio": self.flags.ratio,
            "dense": self.accuracy(self.dense, self.data.test)[0],
            "before": self.accuracy(self.pruned, self.data.test)[0],
            "after": self.accuracy(net, self.data.test)[0],
            "val_before": self.accuracy(self.pruned, self.data.val)[0],
            "val_after": self.accuracy(net, self.data.val)[0],
            "best_epoch": found.best.epoch if found.best else None,
            "epochs": settings.epochs,
        }


def summary(rows: Sequence[dict]) -> str:
    """One line for each network and share: test accuracies, the seeds' mean (lowest to highest)."""
    lines = []
    for net, share in dict.fromkeys((row["net"], row["share"]) for row in rows):
        same = [row for row in rows if (row["net"], row["share"]) == (net, share)]
        after = [[row["after"] for row in same if row["recipe"] == recipe] for recipe in RECIPES]
        epochs = ", ".join(str(row["best_epoch"]) for row in same if row["recipe"] == "fitted")
        first = same[0]
        starts = [f"{first['dense']:.1%}", f"{share:g}", f"{first['before']:.1%}"]
        lines.append([net, *starts, *map(spread, after), f"{epochs} of {first['epochs']:g}"])
    head = ["net", "dense", "share of the schedule", "before", "after, pocketflow", "after, fitted", "epochs kept"]
    return table(head, lines)


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):.1%} ({min(values) * 100:.1f} to {max(values) * 100:.1f})"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(nets.NETS), choices=list(nets.NETS))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.25, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fine-tuning")
    parser.add_argument("--ratio", type=float, default=0.4, help="preserve ratio of every layer")
    parser.add_argument("--distil", action="store_true", help="also learn the dense network's outputs")
    parser.add_argument("--folder", default="finetuning", help="where the dense networks are kept")
    parser.add_argument("--results", type=Path, default=Path("finetuning.jsonl"), help="file that rows are appended to")
    return parser.parse_args()


def main() -> None:
    flags = parsed()
    path: Path = flags.results
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = ("net", "share", "recipe", "seed", "distil", "ratio")
    done = {tuple(row[key] for key in keys) for row in rows}
    for name in flags.nets:
        bench = Bench(flags, name)
        try:
            bench.made()
        except UserError as error:
            print(f"left out: {error}", flush=True)
            continue
        for seed in flags.seeds:
            for share in flags.shares:
                for recipe in RECIPES:
                    if (name, share, recipe, seed, flags.distil, flags.ratio) in done:
                        continue
                    rows.append(bench.row(share, recipe, seed))
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    chosen = [row for row in rows if (row["distil"], row["ratio"]) == (flags.distil, flags.ratio)]
    print(summary([row for row in chosen if row["net"] in flags.nets]))
    print(f"\nDigits, preserve ratio {flags.ratio}, distillation {flags.distil}; {machine()}")


if __name__ == "__main__":
    main()
