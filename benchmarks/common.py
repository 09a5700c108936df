"""What the benchmarks share: the CIFAR-10 network and images they measure on, the machine's name, tables."""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import nets


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks on CIFAR-10 take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data_dir", default="data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--init_checkpoint", default="", help="state dict of the trained ResNet (none: random weights)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def row_arguments(description: str, results: str) -> argparse.ArgumentParser:
    """A parser with the flags of benchmarks that train on a part of the images, and go on where a file of rows ends."""
    parser = arguments(description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="used in place of --seed")
    parser.add_argument("--images", type=int, default=2560, help="of the training split, in an epoch")
    parser.add_argument("--test_images", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=Path(results), help="file that rows are appended to")
    parser.add_argument("--table", action="store_true", help="only print the table of --results")
    return parser


def cifar_resnet(size: int, checkpoint: str = "", device: str = "cpu") -> nn.Module:
    """The CIFAR ResNet with zero-padded shortcuts in evaluation mode, trained if a checkpoint is given."""
    torch.manual_seed(0)
    net = nets.create_net(
        "resnet", num_classes=10, input_shape=(3, 32, 32), resnet_size=size, resnet_version=1, resnet_shortcut="pad"
    )
    if checkpoint:
        net.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return net.to(device).eval()


def cifar10(data_dir: str, device: str = "cpu", seed: int = 0) -> datasets.Dataset:
    return datasets.create_dataset("cifar10", data_dir=data_dir, device=device, seed=seed)


def calibration(dataset: datasets.Dataset, images: int, batch: int = 128, seed: int = 0) -> list[Tensor]:
    """Training images without augmentation, in batches."""
    found: list[Tensor] = []
    for x, _ in dataset.train.batches(batch, seed=seed, shuffle=True):
        found.append(x[: images - sum(len(f) for f in found)])
        if sum(len(f) for f in found) >= images:
            break
    return found


def subset(split: datasets.Split, samples: int, seed: int) -> datasets.Split:
    """A random part of a split that lies in memory; all of it where there are not more samples."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:samples].to(split.device)
    part = copy.copy(split)
    part.images, part.labels = split.images[chosen], split.labels[chosen]
    return part


def part_of_cifar10(data_dir: str, train: int, test: int, seed: int = 0) -> datasets.Dataset:
    """CIFAR-10 with so many training images, and test images; as many of the latter are for validation."""
    data = cifar10(data_dir, seed=seed)
    splits = {
        "train": subset(data.train, train, seed),
        "val": subset(data.val, test, 0),
        "test": subset(data.test, test, 0),
    }
    return replace(data, **splits)


def machine(device: str = "cpu") -> str:
    """Hardware and versions, for the line under a table."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}, {torch.get_num_threads()} threads), "
        f"PyTorch {torch.__version__}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, head)), ["---"] * len(head), *[list(map(str, row)) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float | None]) -> str:
    """The mean and, of several values, the standard deviation, in per cent; nothing where there is no value."""
    found = [value for value in values if value is not None]
    if not found:
        return ""
    deviation = f" ± {100 * stdev(found):.2f}" if len(found) > 1 else ""
    return f"{100 * mean(found):.2f}{deviation}"


def saved_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file; the last line may be half-written."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a finished row to a results file, and print it without its flags."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print({name: row[name] for name in row if name != "flags"}, flush=True)
