"""Regression with two inputs: how far is one picture turned against the other? Metric: minus the error in degrees.

The network takes its inputs by name and returns two heads: the angle, and how much noise there is.

python -m examples.two_inputs
"""

import copy
import math

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import pocketprune
from examples.telling import arguments, settings, show

BATCH = 50
MOST = 60.0  # degrees

Data = list[tuple[dict[str, Tensor], Tensor]]


def turned(count: int, seed: int) -> Data:
    """Return batches of (pairs of pictures by name, [degrees / MOST, noise] (n, 2))."""
    made = torch.Generator().manual_seed(seed)
    digits = torch.tensor(load_digits().images / 16.0, dtype=torch.float32)
    chosen = digits[torch.randint(len(digits), (count,), generator=made)][:, None]
    first = F.interpolate(chosen, size=(16, 16), mode="bilinear")
    share = torch.rand(count, generator=made) * 2 - 1
    noise = torch.rand(count, generator=made) * 0.2
    angle = share * MOST * math.pi / 180
    rows = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle], 1).reshape(-1, 2, 3)
    second = F.grid_sample(first, F.affine_grid(rows, list(first.shape), align_corners=False), align_corners=False)
    second = second + noise[:, None, None, None] * torch.randn(second.shape, generator=made)
    wanted = torch.stack([share, noise], 1)
    return [({"first": first[part], "second": second[part]}, wanted[part]) for part in torch.arange(count).split(BATCH)]


class Siamese(nn.Module):
    """Two branches with the same weights, what they see joined, two heads."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()
        )
        self.joined = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.angle, self.noise = (nn.Linear(2 * width * 16, 1) for _ in range(2))

    def forward(self, *, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """Return the angle and the noise, (n, 1) each."""
        x = self.joined(torch.cat([self.branch(first), self.branch(second)], 1)).flatten(1)
        return {"angle": self.angle(x), "noise": self.noise(x)}


def train(net: nn.Module, data: Data, epochs: int, rate: float = 2e-3) -> None:
    """Train in place: mean squared errors, Adam, the rate falling to 0."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(data)))
    net.train()
    for _ in range(epochs):
        for number in torch.randperm(len(data)):
            inputs, wanted = data[number]
            found = net(**inputs)
            loss = F.mse_loss(found["angle"][:, 0], wanted[:, 0]) + F.mse_loss(found["noise"][:, 0], wanted[:, 1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def error(net: nn.Module, data: Data) -> float:
    """Return minus the mean error of the angle, in degrees."""
    misses = [(net(**inputs)["angle"][:, 0] - wanted[:, 0]).abs() for inputs, wanted in data]
    return -MOST * float(torch.cat(misses).mean())


def main() -> None:
    """Train, search the ratios by the error on held-out pairs, prune, train a little more, tell."""
    given = arguments("Prune a regression network with two inputs.", epochs=15)
    train_set, held_out, test_set = turned(2 * given.images, 0), turned(200, 1), turned(400, 2)
    dense = Siamese()
    train(dense, train_set, given.epochs)

    task = pocketprune.Task(metric=lambda net: error(net, held_out), name="-degrees")
    batches = [inputs for inputs, _ in train_set]
    found = pocketprune.search_ratios(dense, batches, given.share, task=task, settings=settings(given))
    pruned = pocketprune.prune_channels(dense, batches, found.ratios).net
    tuned = copy.deepcopy(pruned)
    train(tuned, train_set, max(1, given.epochs // 4), rate=5e-4)

    nets = {"dense": dense, "pruned": pruned, "pruned, trained": tuned}
    show("-degrees", lambda net: error(net, test_set), nets, test_set[0][0])


if __name__ == "__main__":
    main()
