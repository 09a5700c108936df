"""What masks and regularisers cost a training step: medians of steps with and without them, in turns.

python benchmarks/mask_overhead.py
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import arguments, cifar_resnet, machine, table
from torch import nn

import pocketprune

KINDS: dict[str, dict[str, Any]] = {
    "soft mask": {},
    "hard mask": {"mask": "hard"},
    "soft mask, bn_scale": {"regulariser": "bn_scale"},
    "soft mask, group_lasso": {"regulariser": "group_lasso"},
}


def stepper(net: nn.Module, controller: pocketprune.Controller | None, batch: int, device: str) -> Callable[[], None]:
    """Return a function that does one training step."""
    optimizer = torch.optim.SGD(net.train().parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(batch, 3, 32, 32, device=device), torch.randint(0, 10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        if controller is not None and controller.has_penalty:
            loss = loss + controller.loss()
        loss.backward()
        optimizer.step()
        if controller is not None:
            controller.step()

    return step


def clock(device: str) -> float:
    """Return the seconds that this process has computed; on a GPU those that have passed."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def medians(steps: list[Callable[[], None]], repeats: int, device: str) -> list[float]:
    """Return the median seconds of each, all of them in turns so that the machine's moods meet all alike."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats + 2):
        for step, mine in zip(steps, times, strict=True):
            began = clock(device)
            step()
            mine.append(clock(device) - began)
    return [statistics.median(mine[2:]) for mine in times]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    flags = parser.parse_args()
    dense = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
    steps = [stepper(copy.deepcopy(dense), None, flags.batch_size, flags.device)]
    for options in KINDS.values():
        net = copy.deepcopy(dense)
        controller = pocketprune.compress(net, torch.zeros(2, 3, 32, 32), {"schedule": "one_shot", **options})
        controller.epoch_step()
        steps.append(stepper(net, controller, flags.batch_size, flags.device))
    plain, *others = medians(steps, flags.repeats, flags.device)
    rows = [["plain", f"{1000 * plain:.1f} ms", ""]]
    rows += [[name, f"{1000 * ms:.1f} ms", f"{ms / plain - 1:+.1%}"] for name, ms in zip(KINDS, others, strict=True)]
    print(table(["step", "median", "more"], rows))
    print(f"\nResNet-{flags.resnet_size}, batch {flags.batch_size}, {flags.repeats} steps; {machine(flags.device)}")


if __name__ == "__main__":
    main()
