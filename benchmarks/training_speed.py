"""Images a second and peak memory of training ResNet-20 on CIFAR-10, against a plain loop over a DataLoader.

    python benchmarks/training_speed.py --data_dir data

The plain loop is what people write: torchvision's classic transforms for CIFAR (RandomCrop(32, padding=4),
RandomHorizontalFlip, ToTensor, Normalize), sample by sample on PIL images and operation by operation as torchvision
does them; a DataLoader without workers or with two; torch.optim.SGD; the loss read every step. Each variant runs in
processes of its own, in turns; the median of the turns is shown, and the share of the faster plain loop's.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from common import arguments, cifar10, cifar_resnet, machine, table
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from datasets.memory import CropFlip, TensorSplit
from pocketprune.training import TrainSettings, train

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
WARM_UP = 10  # steps


class Samples(Dataset):
    """CIFAR-10 as PIL images, transformed one by one; images: (N, 32, 32, 3), uint8."""

    def __init__(self, images: np.ndarray, labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), border=4, fill=0)
        top, left = (torch.randint(0, 9, size=(1,)).item() for _ in range(2))
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(32, 32, 3)
        pixels = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, std = (torch.as_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
        return pixels.clone().sub_(mean).div_(std), self.labels[index]


def training_split(flags: argparse.Namespace) -> TensorSplit:
    if not flags.random_images:
        return cifar10(flags.data_dir, flags.device).train
    generator = torch.Generator().manual_seed(flags.seed)
    images = torch.randint(256, (45000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (45000,), generator=generator)
    return TensorSplit(images, labels, mean=MEAN, std=STD, augmentation=CropFlip(4, True), device=flags.device)


def plain(flags: argparse.Namespace, workers: int) -> float:
    """Images a second of the plain loop, after a few steps."""
    split = training_split(flags)
    samples = Samples(split.images.permute(0, 2, 3, 1).contiguous().cpu().numpy(), split.labels.tolist())
    net = cifar_resnet(20, device=flags.device).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = DataLoader(
        samples, 128, shuffle=True, drop_last=True, num_workers=workers, pin_memory=flags.device != "cpu"
    )
    for step, (images, labels) in enumerate(loader):
        if step == WARM_UP:
            began = time.perf_counter()
        loss = F.cross_entropy(net(images.to(flags.device)), labels.to(flags.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        if step == WARM_UP + flags.steps - 1:
            break
    return flags.steps * 128 / (time.perf_counter() - began)


def ours(flags: argparse.Namespace, **options: object) -> float:
    """Images a second of pocketprune's loop, after a few steps."""
    split = training_split(flags)
    net, epoch = cifar_resnet(20, device=flags.device), len(split) // 128
    train(net, split, TrainSettings(epochs=WARM_UP / epoch, **options), progress=False)
    return train(net, split, TrainSettings(epochs=flags.steps / epoch, **options), progress=False).images_per_second


# On a CPU channels_last is what --channels_last is by default for the project's networks.
VARIANTS: dict[str, Callable[[argparse.Namespace], float]] = {
    "plain, num_workers=0": lambda flags: plain(flags, 0),
    "plain, num_workers=2": lambda flags: plain(flags, 2),
    "ours, --nochannels_last": ours,
    "ours": lambda flags: ours(flags, channels_last=flags.device == "cpu"),
    "ours, --amp bf16": lambda flags: ours(flags, channels_last=True, amp="bf16"),
    "ours, --compile": lambda flags: ours(flags, channels_last=flags.device == "cpu", compile=True),
}


def one(flags: argparse.Namespace) -> None:
    """Measure one variant in this process; print images a second and MiB at the peak, of the main process."""
    rate = VARIANTS[flags.variant](flags)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if flags.device != "cpu"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    print(rate, peak)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also through torch.compile, which needs a compiler")
    parser.add_argument("--random_images", action="store_true", help="instead of CIFAR-10: their content costs no time")
    parser.add_argument("--variant", choices=VARIANTS, default=None, help="this one only, in this process")
    flags = parser.parse_args()
    if flags.variant:
        one(flags)
        return
    names = [name for name in VARIANTS if flags.compile or "compile" not in name]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(flags.repeats):
        for name in names:
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(tuple(map(float, output.split())))
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in found.items()}
    fastest_plain = max(rate for name, rate in rates.items() if name.startswith("plain"))
    rows = [
        [name, f"{rate:.0f}", f"{rate / fastest_plain:.2f}", f"{max(peak for _, peak in found[name]):.0f}"]
        for name, rate in rates.items()
    ]
    print(table(["training loop", "images/s", "against the faster plain loop", "peak MiB"], rows))
    print(f"\nResNet-20, CIFAR-10, batches of 128; {machine(flags.device)}")


if __name__ == "__main__":
    main()
