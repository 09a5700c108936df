"""Preserve ratios under a MAC budget: every search against uniform ratios, before and after the same fine-tuning.

    python benchmarks/search.py --data_dir data --init_checkpoint resnet20.pt --results search.jsonl

Each row is printed and appended to --results as it comes; rows already there are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from common import arguments, calibration, cifar10, cifar_resnet, machine, table
from row_pipeline import prune_by_rows
from torch import nn

import pocketprune
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.search import (
    SEARCHES,
    Budget,
    Hooks,
    Problem,
    Score,
    SearchSettings,
    SensitivityTable,
    Values,
    search,
)
from pocketprune.search.finalists import decide
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

HEAD = ("budget", "search", "seed", "seconds", "roll-outs/s", "MACs", "held-out", "test", "fine-tuned")


class Bench:
    """One network and seed: the environment, and the way from counts to a row."""

    def __init__(self, flags: argparse.Namespace, seed: int) -> None:
        self.flags, self.seed = flags, seed
        self.data = cifar10(flags.data_dir, flags.device, seed)
        self.net = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
        self.calibration = calibration(self.data, flags.images, seed=seed)
        held_out = [
            batch
            for batch, _ in zip(
                self.data.val.batches(100, seed=seed, shuffle=True), range(flags.held_out // 100), strict=False
            )
        ]
        start = time.perf_counter()
        self.env = PruningEnvironment(
            self.net,
            self.calibration,
            held_out,
            options=pocketprune.PruningOptions(
                shared_input=flags.shared_input, points_per_layer=flags.points, seed=seed
            ),
        )
        self.seconds = time.perf_counter() - start
        self.table: SensitivityTable | None = None

    def row(self, budget: float, method: str) -> dict[str, object]:
        """Search, prune, measure, fine-tune, measure."""
        problem = Problem(self.env, Budget("macs", budget))
        start = time.perf_counter()
        settings = SearchSettings(nb_rlouts=self.flags.nb_rlouts, nb_rlouts_min=self.flags.nb_rlouts // 4)
        found = search(
            self.env,
            problem.budget,
            method=method,
            settings=settings,
            seed=self.seed,
            hooks=Hooks(table=self.table, on_table=self._keep),
        )
        searched = time.perf_counter() - start
        nets: dict[Values, nn.Module] = {}

        def score(counts: Values) -> Score:
            nets[counts] = self._pruned(counts)
            return self.env.judge(nets[counts].eval())

        (counts, *_), scored = decide(problem, found, score, settings)
        held_out, net = dict(scored)[counts], nets[counts]
        row = {
            "budget": budget,
            "search": method,
            "seed": self.seed,
            "setup_seconds": self.seconds,
            "search_seconds": searched,
            "seconds": time.perf_counter() - start,
            "roll_outs": len(found.history),
            "macs": self.env.cost(counts) / problem.full_cost,
            "held_out": held_out.accuracy,
            "first_held_out": scored[0][1].accuracy,
            "counts": list(counts),
            "test": self._test(net),
        }
        return row | {"fine_tuned": self._fine_tuned(net)}

    def _keep(self, table: SensitivityTable) -> None:
        self.table = table

    def _pruned(self, counts: Values) -> nn.Module:
        return pocketprune.prune_channels(
            self.net,
            self.calibration,
            self.env.ratios(counts),
            options=pocketprune.PruningOptions(
                seed=self.seed,
                selection=self.flags.selection,
                shared_input=self.flags.shared_input,
                points_per_layer=self.flags.points,
            ),
        ).net

    def _test(self, net: nn.Module) -> float:
        return evaluate(net, self.data.test, 200, progress=False).accuracy

    def _fine_tuned(self, net: nn.Module) -> float | None:
        if not self.flags.finetune_epochs:
            return None
        settings = TrainSettings(
            epochs=self.flags.finetune_epochs,
            optimizer="adam",
            lrn_rate=self.flags.lrn_rate,
            schedule=Cosine(0.1),
            weight_decay=0.0,
            channels_last=self.flags.device == "cpu",
            seed=self.seed,
            amp=self.flags.amp,
        )
        tuned = copy.deepcopy(net)
        train(tuned, self.data.train, settings, progress=False)
        return self._test(tuned)

    def speed(self, budget: float) -> tuple[float, float]:
        """Seconds of one roll-out, and of pruning once from rows (without its evaluation)."""
        problem = Problem(self.env, Budget("macs", budget))
        start = time.perf_counter()
        search(self.env, problem.budget, method="random", settings=SearchSettings(nb_rlouts=5), seed=self.seed)
        rollout = (time.perf_counter() - start) / 5
        names = [variable.name for variable in self.env.variables if len(variable.allowed) > 1]
        start = time.perf_counter()
        prune_by_rows(self.net, names, self.calibration, 0.5, self.flags.points or 10, self.seed)
        return rollout, time.perf_counter() - start


def shown(row: dict) -> list[str]:
    tuned = "" if row["fine_tuned"] is None else f"{row['fine_tuned']:.2%}"
    return [
        f"{row['budget']:.0%}",
        row["search"],
        row["seed"],
        f"{row['seconds']:.0f}",
        f"{row['roll_outs'] / row['search_seconds']:.1f}",
        f"{row['macs']:.2%}",
        f"{row['held_out']:.2%}",
        f"{row['test']:.2%}",
        tuned,
    ]


def summary(rows: Sequence[dict]) -> str:
    """The seeds' means, lowest and highest; the MACs of the seed that strays most; the seconds of the quickest."""
    lines = []
    for budget, method in dict.fromkeys((row["budget"], row["search"]) for row in rows):
        same = [row for row in rows if (row["budget"], row["search"]) == (budget, method)]
        macs = max((row["macs"] for row in same), key=lambda share: abs(share - budget))
        lines.append(
            [
                f"{budget:.0%}",
                method,
                len(same),
                f"{macs:.1%}",
                spread([row["test"] for row in same]),
                spread([row["fine_tuned"] for row in same if row["fine_tuned"] is not None]),
                f"{min(row['seconds'] for row in same):.0f}",
            ]
        )
    return table(["budget", "search", "seeds", "MACs", "test", "fine-tuned", "seconds"], lines)


def spread(values: Sequence[float]) -> str:
    """Mean (lowest to highest), in per cent."""
    if not values:
        return ""
    return f"{statistics.mean(values):.2%} ({min(values) * 100:.1f} to {max(values) * 100:.1f})"


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--methods", nargs="+", default=["uniform", *(m for m in SEARCHES if m != "uniform")])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--nb_rlouts", type=int, default=200)
    parser.add_argument("--images", type=int, default=2000, help="calibration images")
    parser.add_argument("--held_out", type=int, default=2000, help="held-out images that score a roll-out")
    parser.add_argument("--points", type=int, default=10, help="positions an image; 0 takes all")
    parser.add_argument("--selection", default="obs")
    parser.add_argument("--shared_input", default="keep")
    parser.add_argument("--finetune_epochs", type=float, default=1.0)
    parser.add_argument("--lrn_rate", type=float, default=0.002, help="Adam's")
    parser.add_argument("--amp", default="off")
    parser.add_argument("--results", default="search.jsonl", help="file of rows, appended to")
    parser.add_argument("--no_speed", action="store_true", help="do not compare with re-pruning from rows")
    return parser.parse_args()


def main() -> None:
    flags = parsed()
    path = Path(flags.results)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["budget"], row["search"], row["seed"]) for row in rows}
    print(table(HEAD, [shown(row) for row in rows]), flush=True)
    for seed in flags.seeds:
        missing = [(b, m) for b in flags.budgets for m in flags.methods if (b, m, seed) not in done]
        bench = Bench(flags, seed) if missing else None
        for budget, method in missing:
            rows.append(bench.row(budget, method))
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print("| " + " | ".join(map(str, shown(rows[-1]))) + " |", flush=True)
        if missing and seed == flags.seeds[0] and not flags.no_speed:
            rollout, by_rows = bench.speed(flags.budgets[0])
            print(
                f"\none roll-out {rollout:.2f} s; re-pruning from rows {by_rows:.1f} s, its evaluation left out\n",
                flush=True,
            )
    print(f"\n{summary(rows)}")
    print(
        f"\nResNet-{flags.resnet_size}, CIFAR-10, {flags.images} calibration and {flags.held_out} held-out images, "
        f"{flags.nb_rlouts} roll-outs, fine-tuned {flags.finetune_epochs:g} epochs; {machine(flags.device)}"
    )


if __name__ == "__main__":
    main()
