"""Methods that train towards fewer channels, beside channel pruning, which prunes first and trains afterwards.

python benchmarks/whole_channels.py --data_dir data --init_checkpoint resnet20.pt --results whole_channels.jsonl
python benchmarks/whole_channels.py --results whole_channels.jsonl --table

"dis-chn-pruned" and "channel" remove half of the channels inside of each block of a ResNet-20, and see equally many
training images, those on which channels are chosen included. "auto-compress", "dp" and "anneal" bring the MACs to a
half in equally many CPU seconds: what a search or ADMM leaves of them is for fine-tuning. All fine-tune by the fitted
recipe and keep the best state on validation images. Rows already in the file are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from common import append_row, cifar10, cifar_resnet, machine, row_arguments, saved_rows, spread, subset, table
from torch import Tensor, nn

import pocketprune
from config import Config
from learners.train_settings import finetune_settings
from pocketprune.search import Budget, SearchSettings
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.auto_compress import AutoCompressSettings, auto_compress
from pocketprune.sparsity.discriminating import (
    PartObjective,
    WithClassifiers,
    choose_channels,
    parts_of,
    prunable_layers,
)
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate

METHODS = ("channel", "dis-chn-pruned", "dp", "anneal", "auto-compress")
FULL, BATCH, PARTS = 250, 128, 3
ONE_RESULT = ("images", "test_images", "epochs", "block_steps", "chosen_on", "seconds", "nb_rlouts", "admm_epochs")


class Bench:
    """The trained network and its images, for one seed."""

    def __init__(self, flags: argparse.Namespace, seed: int) -> None:
        self.flags, self.seed, self.began = flags, seed, time.process_time()
        data = cifar10(flags.data_dir, flags.device, seed)
        self.train, self.val = subset(data.train, flags.images, seed), subset(data.val, 500, 0)
        self.test = subset(data.test, flags.test_images, 0)
        self.dense = cifar_resnet(20, flags.init_checkpoint, flags.device)
        self.batches = [x for x, _ in subset(self.train, 1024, seed).batches(BATCH)]
        self.held_out = list(self.val.batches(250))

    def accuracy(self, net: nn.Module) -> float:
        return float(evaluate(net, self.test, 500, progress=False).accuracy)

    def fit(self, net: nn.Module, epochs: float, *, keep_best: bool = True, **more: Any) -> None:
        asked = ["--net=resnet", "--dataset=cifar10", "--optimizer=adam", "--amp=bf16", "--loss_w_dcy=0"]
        config = Config.from_flags([*asked, f"--seed={self.seed}"])

        def quality(trained: nn.Module) -> tuple[float, float]:
            found = evaluate(trained, self.val, 500, progress=False)
            return found.accuracy, -found.loss

        settings = finetune_settings(config, epochs / FULL, self.flags.device)
        train(net, self.train, settings, judge=quality if keep_best else None, progress=False, **more)

    def fill_seconds(self, net: nn.Module) -> float:
        """Fine-tune until the row's seconds are over; a tenth of an epoch on a copy says how long one takes."""
        trial = time.process_time()
        self.fit(copy.deepcopy(net), 0.1, keep_best=False)
        for_one = 10 * (time.process_time() - trial)
        left = self.flags.seconds - (time.process_time() - self.began)
        epochs = max(0.05, left / (1.2 * for_one))  # a fifth more for the validation images
        self.fit(net, epochs)
        return epochs


def channel(bench: Bench) -> tuple[nn.Module, float, float]:
    options = pocketprune.PruningOptions(shared_input="keep", selection="obs", seed=bench.seed)
    net = pocketprune.prune_channels(bench.dense, bench.batches, 0.5, options=options).net
    before = bench.accuracy(net)
    bench.fit(net, bench.flags.epochs)
    return net, before, bench.flags.epochs


def discriminating(bench: Bench) -> tuple[nn.Module, float, float]:
    net, flags, seen = copy.deepcopy(bench.dense), bench.flags, 0
    layers = prunable_layers(pocketprune.analyse(net, bench.batches[0][:2]))
    parts = parts_of(layers, PARTS)
    extended, kept = WithClassifiers(net, [part[-1].name for part in parts], bench.batches[0][:2]), {}

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal seen
        for epoch in count():
            for batch in bench.train.batches(flags.chosen_on, seed=bench.seed + epoch, shuffle=True):
                seen += len(batch[0])
                yield batch

    source = batches()
    for number, part in enumerate(parts):
        steps = flags.block_steps
        bench.fit(extended, steps * BATCH / flags.images, keep_best=False, objective=PartObjective(extended, number))
        seen += steps * BATCH
        for layer in part:
            masked = choose_channels(
                extended, number, layer.name, bench.dense, source, layer.group.size // 2, steps=1, lrn_rate=1e-3
            )
            kept[layer.group.name] = (~masked).nonzero().flatten().tolist()
    extended.detach()
    thinned = pocketprune.remove_channels(net, bench.batches[0][:2], kept)
    before, done = bench.accuracy(thinned), seen / flags.images
    bench.fit(thinned, max(0.05, flags.epochs - done))
    return thinned, before, done


def searched(bench: Bench, method: str) -> tuple[nn.Module, float, float]:
    options = pocketprune.PruningOptions(seed=bench.seed)
    limits = SearchSettings(nb_rlouts=bench.flags.nb_rlouts, swaps=min(60, bench.flags.nb_rlouts))
    found = pocketprune.search_ratios(
        bench.dense, bench.batches, Budget("macs", 0.5), bench.held_out, method=method, options=options, settings=limits
    )
    net = pocketprune.prune_channels(bench.dense, bench.batches, found.ratios, options=options).net
    return net, bench.accuracy(net), bench.fill_seconds(net)


def auto(bench: Bench) -> tuple[nn.Module, float, float]:
    flags = bench.flags

    def tune(net: nn.Module, admm: Admm, number: int) -> None:
        bench.fit(net, flags.admm_epochs, keep_best=False, callbacks=[admm])

    net, _ = auto_compress(
        bench.dense,
        bench.batches,
        0.5,
        bench.held_out,
        tune,
        settings=AutoCompressSettings(rounds=2, nb_rlouts=flags.nb_rlouts),
        admm=AdmmSettings(rounds=4),
        options=pocketprune.PruningOptions(seed=bench.seed),
    )
    return net, bench.accuracy(net), bench.fill_seconds(net)


def measure(bench: Bench, method: str) -> dict[str, Any]:
    """Return one row."""
    ways = {
        "channel": lambda: channel(bench),
        "dis-chn-pruned": lambda: discriminating(bench),
        "dp": lambda: searched(bench, "dp"),
        "anneal": lambda: searched(bench, "anneal"),
        "auto-compress": lambda: auto(bench),
    }
    bench.began = time.process_time()
    net, before, epochs = ways[method]()
    spent = time.process_time() - bench.began
    share = pocketprune.count_macs(net, bench.batches[0][:2]) / pocketprune.count_macs(
        bench.dense, bench.batches[0][:2]
    )
    return {
        "method": method,
        "seed": bench.seed,
        "share": share,
        "before": before,
        "after": bench.accuracy(net),
        "epochs_told": epochs,
        "cpu_seconds": spent,
        "machine": machine(bench.flags.device),
        **{name: getattr(bench.flags, name) for name in ONE_RESULT},
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of a file."""
    body = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        if own:
            measured = [spread([row[key] for row in own]) for key in ("share", "before", "after")]
            seconds = sum(row["cpu_seconds"] for row in own) / len(own)
            body.append([method, *measured, f"{seconds:.0f}", len(own)])
    print(table(["method", "MACs", "before fine-tuning", "after", "CPU seconds", "seeds"], body))
    for told in sorted({", ".join(f"{name} {row[name]}" for name in (*ONE_RESULT, "machine")) for row in rows}):
        print(told)


def flags_of() -> argparse.Namespace:
    parser = row_arguments(__doc__ or "", "whole_channels.jsonl")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--epochs", type=float, default=8, help="channel and dis-chn-pruned: images seen, in epochs")
    parser.add_argument("--block_steps", type=int, default=10, help="dis-chn-pruned: steps at the start of a part")
    parser.add_argument("--chosen_on", type=int, default=32, help="dis-chn-pruned: images of a step that chooses")
    parser.add_argument("--seconds", type=float, default=120, help="of the CPU; the others")
    parser.add_argument("--nb_rlouts", type=int, default=40, help="of each search")
    parser.add_argument("--admm_epochs", type=float, default=1, help="auto-compress: in each of its two rounds")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    for seed in () if flags.table else flags.seeds:
        done = {(row["method"], row["seed"]) for row in saved_rows(flags.results)}
        bench = Bench(flags, seed)
        for method in flags.methods:
            if (method, seed) not in done:
                append_row(flags.results, measure(bench, method))
    show(saved_rows(flags.results))


if __name__ == "__main__":
    main()
