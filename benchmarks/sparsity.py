"""Sparse weights: each method at each level, before and after fine-tuning.

python benchmarks/sparsity.py --data_dir data --init_checkpoint resnet20.pt --results sparsity.jsonl
python benchmarks/sparsity.py --table --results sparsity.jsonl

Rows of one network, all with the same epochs by the fitted recipe of the learners, each ending with its best state on
validation images under the last masks. "level" masks by magnitude at once and trains what stays; "agp" raises the level
over three quarters of the epochs; "obs" masks and refits in closed form and then trains; "admm" spends half of the
epochs on being pulled to sparse weights; "lottery" rewinds to the network given, in two rounds of half the epochs.
A seed draws the training images, their order and those of the closed form. Rows already in the file are not measured
again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

from common import append_row, cifar10, cifar_resnet, machine, row_arguments, saved_rows, spread, subset, table
from torch import nn

from config import Config
from learners.fitting import masked_quality
from learners.train_settings import finetune_settings
from pocketprune.numerics.projections import SparseSet
from pocketprune.numerics.weight_patterns import Pattern
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.lottery import round_levels, ticket
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate

METHODS = ("obs", "level", "agp", "admm", "lottery")
LEVELS = ("0.9", "2:4", "0.8", "0.95", "0.5")
FULL = 250  # epochs of the full schedule of ResNets on CIFAR-10
ONE_RESULT = ("epochs", "images", "val_images", "test_images", "closed_form_images", "lrn_rate", "rho")


class Bench:
    """The trained network, its images, and how it is trained, for one seed."""

    def __init__(self, flags: argparse.Namespace, seed: int) -> None:
        self.flags, self.seed = flags, seed
        data = cifar10(flags.data_dir, flags.device, seed)
        self.train, self.val = subset(data.train, flags.images, seed), subset(data.val, flags.val_images, 0)
        self.test = subset(data.test, flags.test_images, 0)
        self.dense = cifar_resnet(20, flags.init_checkpoint, flags.device)
        self.seen = [x for x, _ in subset(self.train, flags.closed_form_images, seed).batches(128)]

    def accuracy(self, net: nn.Module) -> float:
        return float(evaluate(net, self.test, 500, progress=False).accuracy)

    def fit(self, net: nn.Module, share: float = 1.0, masks: SparsityController | None = None, **more: Any) -> None:
        """Train for a share of the epochs; with masks, end with the best state."""
        flags = self.flags
        asked = ["--net=resnet", "--dataset=cifar10", "--optimizer=adam", f"--amp={flags.amp}", "--loss_w_dcy=0"]
        rate = [f"--lrn_rate_init={flags.lrn_rate}"] if flags.lrn_rate else []
        config = Config.from_flags([*asked, *rate, f"--seed={self.seed}"])
        settings = finetune_settings(config, share * flags.epochs / FULL, flags.device)

        def quality(trained: nn.Module) -> tuple[float, ...]:
            found = evaluate(trained, self.val, 500, progress=False)
            return masked_quality(found.accuracy, found.loss, masks)

        if masks is not None:
            more = {"callbacks": [SparsityCallback(masks)], "judge": quality}
        train(net, self.train, settings, progress=False, **more)

    def controller(self, net: nn.Module, level: str, criterion: str, schedule: str = "one_shot") -> SparsityController:
        steps = max(1, math.ceil(0.75 * self.flags.epochs * (len(self.train) // 128)))
        given: dict[str, Any] = {"name": schedule, "target": share_of(level)}
        if schedule != "one_shot":
            every = max(1, steps // 8)
            given |= {"steps": steps, "unit": "step", "frequency": every, "freeze": steps + every}
        policy = {
            "pattern": level if ":" in level else "unstructured",
            "criterion": criterion,
            "schedule": given,
            "ignore": ["conv1"] if ":" in level else [],  # a first convolution of 3 inputs fits no n:m
            "seed": self.seed,
        }
        return sparsify(net, policy, self.seen[0][:2], self.seen)


def share_of(level: str) -> float:
    return Pattern.parse(level).largest_level if ":" in level else float(level)


def at_once(bench: Bench, net: nn.Module, level: str, criterion: str) -> float:
    controller = bench.controller(net, level, criterion)
    controller.set_levels([share_of(level)])
    controller.freeze()
    before = bench.accuracy(net)
    bench.fit(net, masks=controller)
    return before


def by_schedule(bench: Bench, net: nn.Module, level: str) -> None:
    bench.fit(net, masks=bench.controller(net, level, "magnitude", "agp"))


def pulled(bench: Bench, net: nn.Module, level: str) -> float:
    controller = bench.controller(net, level, "magnitude")
    rule = controller.policy.rules[0]
    sets = {name: SparseSet("weights", rule.schedule.final, rule.shape) for name in controller.layers[0]}
    admm = Admm(net, sets, AdmmSettings(rounds=bench.flags.rounds, rho=bench.flags.rho))
    bench.fit(net, 0.5, callbacks=[admm])
    controller.impose(admm.masked(), bench.seen)
    before = bench.accuracy(net)
    bench.fit(net, 0.5, masks=controller)
    return before


def drawn(bench: Bench, net: nn.Module, level: str) -> float:
    first = bench.controller(net, level, "magnitude")
    first.detach()
    taken, before = bench.dense.state_dict(), math.nan
    for share in round_levels(share_of(level), 2):
        controller = ticket(net, taken, first.policy, share)
        before = bench.accuracy(net)
        bench.fit(net, 0.5, masks=controller)
        controller.detach()
    return before


def measure(bench: Bench, method: str, level: str) -> dict[str, Any]:
    """Return one row."""
    began, net = time.process_time(), copy.deepcopy(bench.dense)
    ways = {
        "level": lambda: at_once(bench, net, level, "magnitude"),
        "obs": lambda: at_once(bench, net, level, "obs"),
        "agp": lambda: by_schedule(bench, net, level),
        "admm": lambda: pulled(bench, net, level),
        "lottery": lambda: drawn(bench, net, level),
    }
    before = ways[method]()
    zeros = [float((m.weight == 0).float().mean()) for m in net.modules() if isinstance(m, nn.Conv2d)]
    return {
        "method": method,
        "level": level,
        "seed": bench.seed,
        "before": before,
        "after": bench.accuracy(net),
        "least_zeros": min(zeros),
        "cpu_seconds": time.process_time() - began,
        "machine": machine(bench.flags.device),
        **{name: getattr(bench.flags, name) for name in ONE_RESULT},
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of a file."""
    head = ["level", "method", "before fine-tuning", "after", "seeds", "CPU seconds"]
    body = []
    for level in sorted(LEVELS):
        for method in METHODS:
            own = [row for row in rows if (row["level"], row["method"]) == (level, method)]
            if own:
                seconds = f"{mean(row['cpu_seconds'] for row in own):.0f}"
                measured = [spread([row[key] for row in own]) for key in ("before", "after")]
                body.append([level, method, *measured, len(own), seconds])
    print(table(head, body))
    for told in sorted({", ".join(f"{name} {row[name]}" for name in (*ONE_RESULT, "machine")) for row in rows}):
        print(told)


def in_turn(levels: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Return the rows' levels and seeds: two levels for all seeds, the others for one, then what is left."""
    first = [(level, seed) for level in levels[:2] for seed in seeds] + [(level, seeds[0]) for level in levels[2:]]
    return first + [(level, seed) for level in levels[2:] for seed in seeds[1:]]


def flags_of() -> argparse.Namespace:
    parser = row_arguments(__doc__ or "", "sparsity.jsonl")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--levels", nargs="*", choices=LEVELS, default=LEVELS)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--val_images", type=int, default=300, help="that choose the best state")
    parser.add_argument("--closed_form_images", type=int, default=1024)
    parser.add_argument("--lrn_rate", type=float, default=None, help="its own: that of the fitted recipe")
    parser.add_argument("--amp", default="bf16", choices=("off", "bf16"))
    parser.add_argument("--rounds", type=int, default=8, help="of ADMM")
    parser.add_argument("--rho", type=float, default=0.01, help="of ADMM")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    benches: dict[int, Bench] = {}
    done = {(row["level"], row["method"], row["seed"]) for row in saved_rows(flags.results)}
    for level, seed in () if flags.table else in_turn(flags.levels, flags.seeds):
        for method in flags.methods:
            if (level, method, seed) not in done:
                benches[seed] = benches.get(seed) or Bench(flags, seed)
                append_row(flags.results, measure(benches[seed], method, level))
    show(saved_rows(flags.results))


if __name__ == "__main__":
    main()
