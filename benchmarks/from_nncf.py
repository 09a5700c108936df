"""The examples of NNCF's filter-pruning page on the embedded digits: a script as NNCF's users have it, to the end.

    python benchmarks/from_nncf.py

Only the import differs from a script for NNCF 2.x. The examples' epochs are kept; the default of 100 is not waited for.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import nets
import pocketprune
from pocketprune.compat.nncf import NNCFConfig, create_compressed_model, register_default_init_args

EXAMPLES: dict[str, dict[str, Any]] = {
    "10 % at once, 60 % within 20 epochs, first and strided layers too": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {
            "pruning_target": 0.6,
            "pruning_steps": 20,
            "schedule": "exponential",
            "prune_first_conv": True,
            "prune_downsample_convs": True,
        },
    },
    "geometric median, 30 % within 10 epochs, after 10": {
        "algorithm": "filter_pruning",
        "params": {
            "filter_importance": "geometric_median",
            "pruning_target": 0.3,
            "pruning_steps": 10,
            "schedule": "exponential",
            "num_init_steps": 10,
        },
    },
    "60 % of the FLOPs, filters of all layers compete": {
        "algorithm": "filter_pruning",
        "all_weights": True,
        "params": {
            "pruning_flops_target": 0.6,
            "pruning_steps": 20,
            "prune_first_conv": True,
            "prune_downsample_convs": True,
        },
    },
}
EPOCHS, DENSE_EPOCHS = 24, 30


def train(net: nn.Module, data: datasets.Dataset, epochs: int, rate: float, ctrl: Any = None) -> None:
    """A script's loop; with a controller, NNCF's three lines are in it."""
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        if ctrl is not None:
            ctrl.scheduler.epoch_step()
        net.train()
        for images, labels in data.train.batches(64, seed=epoch, shuffle=True, augment=True):
            if ctrl is not None:
                ctrl.scheduler.step()
            loss = F.cross_entropy(net(images), labels)
            if ctrl is not None:
                loss = loss + ctrl.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()


@torch.no_grad()
def accuracy(net: nn.Module, split: datasets.Split) -> float:
    net.eval()
    right = [(net(images).argmax(1) == labels).sum() for images, labels in split.batches(256)]
    return float(torch.stack(right).sum()) / len(split)


def row(title: str, net: nn.Module, data: datasets.Dataset, file: Path | None = None) -> dict[str, Any]:
    example = torch.zeros(2, 1, 8, 8)
    return {
        "network": title,
        "accuracy": round(accuracy(net, data.test), 4),
        "macs": pocketprune.count_macs(net, example),
        "params": pocketprune.count_params(net),
        "onnx_bytes": None if file is None else file.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/from_nncf"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    data = datasets.create_dataset("digits", seed=given.seed)
    dense = nets.create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=20)
    train(dense, data, DENSE_EPOCHS, 0.1)
    pocketprune.export_onnx(given.out / "dense.onnx", dense, torch.zeros(2, 1, 8, 8))
    print(json.dumps(row("dense", dense, data, given.out / "dense.onnx")), flush=True)
    loader = list(data.train.batches(64))
    for number, (title, entry) in enumerate(EXAMPLES.items()):
        began = time.process_time()
        config = NNCFConfig.from_dict({"input_info": {"sample_size": [1, 1, 8, 8]}, "compression": entry})
        config = register_default_init_args(config, loader)
        ctrl, net = create_compressed_model(copy.deepcopy(dense), config)
        train(net, data, EPOCHS, 0.02, ctrl)
        file = given.out / f"pruned{number}.onnx"
        ctrl.export_model(str(file))
        zeroed, smaller = ctrl.strip(remove=False), ctrl.strip()
        for kind, result in (("NNCF's zeros", zeroed), ("removed", smaller)):
            print(json.dumps(row(f"{title}: {kind}", result, data, file if result is smaller else None)), flush=True)
        print(ctrl.statistics().to_str(), f"\n{time.process_time() - began:.0f} processor seconds\n", flush=True)


if __name__ == "__main__":
    main()
