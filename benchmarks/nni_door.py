"""NNI's documented examples, to the end: mask, speed up, train.

python benchmarks/nni_door.py --results nni.jsonl          a ResNet-8 on the digits for each pruner
python benchmarks/nni_door.py --results nni.jsonl --data_dir data --init_checkpoint resnet20.pt     on CIFAR-10
python benchmarks/nni_door.py --table --results nni.jsonl

On the digits, a ResNet-8 is trained once, for 20 epochs. On CIFAR-10 it is a trained ResNet-20, and a part of the
images. Each pruner masks half of the filters (of the convolutions' weights where it
searches, of the MACs for AMC). `ModelSpeedup` makes the network smaller; five epochs of training follow. What is judged
while a pruner runs is the validation split; the table's accuracies are those of the test split. Rows already in the
file are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import cifar_resnet, machine, part_of_cifar10, table
from torch import nn

import datasets
import nets
import pocketprune
from pocketprune.compat import nni
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

HALF = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
SCALES = [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}]
DENSE, AFTER, BATCH = 20, 5, 64
Make = Callable[[nn.Module, "Task"], Any]


class Task:
    """The digits or a part of CIFAR-10, and a person's own training and judge."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.is_real, self.init_checkpoint = bool(flags.data_dir), flags.init_checkpoint
        if self.is_real:
            self.data = part_of_cifar10(flags.data_dir, flags.train_images, flags.test_images)
        else:
            self.data = datasets.create_dataset("digits", seed=0)
        self.criterion = nn.CrossEntropyLoss()
        self.example = next(iter(self.data.val.batches(2)))[0]

    def trainer(self, net: nn.Module, optimizer: Any, criterion: Any, epoch: int = 0) -> None:
        net.train()
        for images, labels in self.data.train.batches(BATCH, seed=0, epoch=epoch, shuffle=True):
            optimizer.zero_grad()
            criterion(net(images), labels).backward()
            optimizer.step()

    def evaluator(self, net: nn.Module) -> float:
        return evaluate(net, self.data.val, 256, progress=False).accuracy

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def fit(self, net: nn.Module, epochs: int, rate: float) -> None:
        settings = TrainSettings(epochs=epochs, batch_size=BATCH, lrn_rate=rate, schedule=Cosine(warmup=0.05))
        train(net, self.data.train, settings, progress=False)

    def test(self, net: nn.Module) -> float:
        return evaluate(net, self.data.test, 256, progress=False).accuracy


def _trained(kind: type, config: Any, **more: Any) -> Make:
    return lambda net, task: kind(net, config, task.optimizer(net), task.trainer, task.criterion, **more)


PRUNERS: dict[str, Make] = {
    "L1Filter": lambda net, task: nni.L1FilterPruner(net, HALF),
    "L1Filter, dependency-aware": lambda net, task: nni.L1FilterPruner(
        net, HALF, dependency_aware=True, dummy_input=task.example
    ),
    "L2Filter": lambda net, task: nni.L2FilterPruner(net, HALF),
    "FPGM": lambda net, task: nni.FPGMPruner(net, HALF),
    "Slim": _trained(nni.SlimPruner, SCALES),
    "ActivationAPoZRankFilter": _trained(nni.ActivationAPoZRankFilterPruner, HALF),
    "ActivationMeanRankFilter": _trained(nni.ActivationMeanRankFilterPruner, HALF),
    "TaylorFOWeightFilter": _trained(nni.TaylorFOWeightFilterPruner, HALF, sparsifying_training_batches=8),
    "AGP (l1)": _trained(nni.AGPPruner, HALF, num_iterations=5, pruning_algorithm="l1"),
    "NetAdapt": lambda net, task: nni.NetAdaptPruner(
        net, HALF, evaluator=task.evaluator, base_algo="l1", sparsity_per_iteration=0.1
    ),
    "SimulatedAnnealing": lambda net, task: nni.SimulatedAnnealingPruner(net, HALF, evaluator=task.evaluator),
    "Sensitivity": lambda net, task: nni.SensitivityPruner(net, HALF, evaluator=task.evaluator),
    "AMC": lambda net, task: nni.AMCPruner(
        net, [{"op_types": ["Conv2d"]}], task.evaluator, task.data.val.batches(64), channel_round=2, train_episode=60,
        warmup=20,
    ),
}  # fmt: skip


def measure(task: Task, dense: nn.Module, name: str) -> dict[str, Any]:
    """Run one example to its end."""
    net, began = copy.deepcopy(dense), time.perf_counter()
    pruner = PRUNERS[name](net, task)
    pruner.compress()
    masked = task.test(net)
    nni.ModelSpeedup(net, task.example, pruner.masks).speedup_model()
    seconds = time.perf_counter() - began
    row = {"pruner": name, "masked": masked, "removed": task.test(net), "seconds": seconds}
    task.fit(net, AFTER, 0.02)
    cost = {"macs": pocketprune.count_macs(net, task.example), "params": pocketprune.count_params(net)}
    return row | {"final": task.test(net)} | cost


def dense_net(task: Task, path: Path) -> nn.Module:
    """Return the trained network; that of the digits is kept in a file."""
    if task.is_real:
        return cifar_resnet(20, task.init_checkpoint)
    torch.manual_seed(0)
    net = nets.create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        task.fit(net, DENSE, 0.1)
        torch.save(net.state_dict(), path)
    return net


def show(rows: list[dict[str, Any]]) -> None:
    dense = next(row for row in rows if row["pruner"] == "dense")
    head = ("pruner", "masked", "smaller", "trained", "MACs", "parameters", "seconds")
    lines = [
        (
            row["pruner"],
            *(f"{100 * row[key]:.1f} %" if key in row else "" for key in ("masked", "removed", "final")),
            *(f"{row[key]:,} ({row[key] / dense[key]:.0%})" for key in ("macs", "params")),
            f"{row['seconds']:.0f}",
        )
        for row in rows
    ]
    print(table(head, lines))
    print(f"\n{machine()}, seed 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("nni.jsonl"))
    parser.add_argument("--only", nargs="*", default=list(PRUNERS), choices=list(PRUNERS))
    parser.add_argument("--data_dir", default="", help="folder that holds cifar-10-batches-py; none: the digits")
    parser.add_argument("--init_checkpoint", default="", help="CIFAR-10: state dict of the trained ResNet-20")
    parser.add_argument("--train_images", type=int, default=1280, help="CIFAR-10: training images")
    parser.add_argument("--test_images", type=int, default=2000, help="CIFAR-10: images that judge, twice")
    parser.add_argument("--table", action="store_true", help="show what the file holds")
    flags = parser.parse_args()
    rows = [json.loads(line) for line in flags.results.read_text().splitlines()] if flags.results.exists() else []
    if flags.table:
        show(rows)
        return
    task = Task(flags)
    dense = dense_net(task, flags.results.with_suffix(".pt"))
    done = {row["pruner"] for row in rows}
    with open(flags.results, "a", encoding="utf-8") as file:
        if "dense" not in done:
            cost = {"macs": pocketprune.count_macs(dense, task.example), "params": pocketprune.count_params(dense)}
            file.write(json.dumps({"pruner": "dense", "final": task.test(dense), "seconds": 0.0, **cost}) + "\n")
        for name in flags.only:
            if name not in done:
                file.write(json.dumps(measure(task, dense, name)) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
