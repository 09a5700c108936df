"""Images a second and peak memory of training ResNet-20 on CIFAR-10, against a plain loop over a DataLoader.

    python benchmarks/training_speed.py --data_dir data

The plain loop is what people write: per-sample transforms on PIL images, torch.optim.SGD, the loss read every step.
Each variant runs in processes of its own, in turns; the median of the turns is shown.
"""
from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from common import arguments, cifar10, cifar_resnet, machine, table
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pocketprune.training import TrainSettings, train

VARIANTS = ("plain", "plain with workers", "ours, contiguous", "ours")
MEAN, STD = np.array([0.491, 0.482, 0.447], np.float32), np.array([0.247, 0.243, 0.262], np.float32)


class Samples(Dataset):
    """CIFAR-10 as PIL images, cropped and flipped one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index].transpose(1, 2, 0)), 4)
        left, top = (int(torch.randint(0, 9, ())) for _ in range(2))
        image = image.crop((left, top, left + 32, top + 32))
        if float(torch.rand(())) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), int(self.labels[index])


def plain(flags: object, workers: int) -> float:
    """Images a second of the plain loop, after ten steps."""
    split = cifar10(flags.data_dir).train
    samples = Samples(split.images.numpy(), split.labels.numpy())
    net = cifar_resnet(20, device=flags.device).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = DataLoader(samples, 128, shuffle=True, drop_last=True, num_workers=workers,
                        pin_memory=flags.device != "cpu")
    for step, (images, labels) in enumerate(loader):
        if step == 10:
            began = time.perf_counter()
        loss = F.cross_entropy(net(images.to(flags.device)), labels.to(flags.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())
        if step == 10 + flags.steps - 1:
            break
    return flags.steps * 128 / (time.perf_counter() - began)


def ours(flags: object, channels_last: bool) -> float:
    """Images a second of pocketprune's loop, after ten steps."""
    split = cifar10(flags.data_dir, flags.device).train
    net = cifar_resnet(20, device=flags.device)
    epoch = len(split) // 128
    settings = TrainSettings(epochs=10 / epoch, channels_last=channels_last, amp=flags.amp)
    train(net, split, settings, progress=False)
    result = train(net, split, TrainSettings(epochs=flags.steps / epoch, channels_last=channels_last, amp=flags.amp),
                   progress=False)
    return result.images_per_second


def one(flags: object) -> None:
    """Measure one variant in this process; print images a second and MiB at the peak."""
    works = {"plain": lambda: plain(flags, 0), "plain with workers": lambda: plain(flags, 2),
             "ours, contiguous": lambda: ours(flags, False), "ours": lambda: ours(flags, True)}
    rate = works[flags.variant]()
    peak = (torch.cuda.max_memory_allocated() / 2**20 if flags.device != "cpu"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    print(rate, peak)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--amp", default="off", choices=("off", "bf16"))
    parser.add_argument("--variant", choices=VARIANTS, default=None, help="this one only, in this process")
    flags = parser.parse_args()
    if flags.variant:
        one(flags)
        return
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for _ in range(flags.repeats):
        for name in VARIANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(tuple(map(float, output.split())))
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in found.items()}
    fastest_plain = max(rates["plain"], rates["plain with workers"])
    rows = [[name, f"{rate:.0f}", f"{rate / fastest_plain:.2f}", f"{max(peak for _, peak in found[name]):.0f}"]
            for name, rate in rates.items()]
    print(table(["training loop", "images/s", "against the faster plain loop", "peak MiB"], rows))
    print(f"\nResNet-20, CIFAR-10, batches of 128; {machine(flags.device)}")


if __name__ == "__main__":
    main()
