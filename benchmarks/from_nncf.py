"""The examples of NNCF's filter-pruning page, to the end: a script as NNCF's users have it.

    python benchmarks/from_nncf.py                                                  on the embedded digits
    python benchmarks/from_nncf.py --data_dir data --init_checkpoint resnet20.pt    on CIFAR-10

Only the import differs from a script for NNCF 2.x. The examples' epochs are kept; the default of 100 is not waited for.
On CIFAR-10 an epoch is a part of the images.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import cifar_resnet, part_of_cifar10
from torch import nn

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
EPOCHS, DENSE_EPOCHS = 21, 10


def train(net: nn.Module, data: datasets.Dataset, epochs: int, rate: float, ctrl: Any = None) -> None:
    """A script's loop; with a controller, NNCF's three lines are in it."""
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        if ctrl is not None:
            ctrl.scheduler.epoch_step()
        net.train()
        for images, labels in data.train.batches(128, seed=epoch, shuffle=True, augment=True):
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
    example = torch.zeros(2, *data.input_shape)
    return {
        "network": title,
        "accuracy": round(accuracy(net, data.test), 4),
        "macs": pocketprune.count_macs(net, example),
        "params": pocketprune.count_params(net),
        "onnx_bytes": None if file is None else file.stat().st_size,
    }


def dense_net(given: argparse.Namespace, data: datasets.Dataset) -> nn.Module:
    """Return the trained network."""
    if given.data_dir:
        return cifar_resnet(given.resnet_size, given.init_checkpoint)
    dense = nets.create_net("resnet", num_classes=10, input_shape=data.input_shape, resnet_size=given.resnet_size)
    train(dense, data, DENSE_EPOCHS, 0.1)
    return dense


def flags_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--data_dir", default="", help="folder that holds cifar-10-batches-py; none: the digits")
    parser.add_argument("--init_checkpoint", default="", help="CIFAR-10: state dict of the trained ResNet")
    parser.add_argument("--train_images", type=int, default=640, help="CIFAR-10: images of an epoch")
    parser.add_argument("--test_images", type=int, default=2000, help="CIFAR-10: images that judge")
    parser.add_argument("--lrn_rate", type=float, default=0.02)
    parser.add_argument("--out", type=Path, default=Path("runs/from_nncf"))
    return parser.parse_args()


def main() -> None:
    given = flags_of()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    if given.data_dir:
        data = part_of_cifar10(given.data_dir, given.train_images, given.test_images, given.seed)
    else:
        data = datasets.create_dataset("digits", seed=given.seed)
    dense = dense_net(given, data)
    pocketprune.export_onnx(given.out / "dense.onnx", dense, torch.zeros(2, *data.input_shape))
    print(json.dumps(row("dense", dense, data, given.out / "dense.onnx")), flush=True)
    loader = list(data.train.batches(64))
    for number, (title, entry) in enumerate(EXAMPLES.items()):
        began = time.process_time()
        config = NNCFConfig.from_dict({"input_info": {"sample_size": [1, *data.input_shape]}, "compression": entry})
        config = register_default_init_args(config, loader)
        ctrl, net = create_compressed_model(copy.deepcopy(dense), config)
        train(net, data, EPOCHS, given.lrn_rate, ctrl)
        file = given.out / f"pruned{number}.onnx"
        ctrl.export_model(str(file))
        zeroed, smaller = ctrl.strip(remove=False), ctrl.strip()
        for kind, result in (("NNCF's zeros", zeroed), ("removed", smaller)):
            print(json.dumps(row(f"{title}: {kind}", result, data, file if result is smaller else None)), flush=True)
        print(ctrl.statistics().to_str(), f"\n{time.process_time() - began:.0f} processor seconds\n", flush=True)


if __name__ == "__main__":
    main()
