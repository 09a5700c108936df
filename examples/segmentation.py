"""Semantic segmentation: a U-Net with skips names the digit of every pixel. Metric: the mean IoU.

python -m examples.segmentation
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pocketprune
from examples.canvas import CLASSES, Canvas, draw
from examples.telling import arguments, settings, show

BATCH = 50
STEP = 15  # pictures of a training step
BACKGROUND = 0.2  # the weight of its pixels in the loss: there are many


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions with batch norms."""
    layers = [
        part
        for c in (inputs, outputs)
        for part in (nn.Conv2d(c, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels; each level of the way up also reads what the way down had there."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = block(1, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up2, self.up1 = block(6 * width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, CLASSES + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (n, CLASSES + 1, H, W) of every pixel."""
        fine = self.down1(images)
        middle = self.down2(F.max_pool2d(fine, 2))
        coarse = self.bottom(F.max_pool2d(middle, 2))
        middle = self.up2(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        scores: Tensor = self.head(self.up1(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1)))
        return scores


def train(net: nn.Module, data: Canvas, epochs: int, rate: float = 1e-2) -> None:
    """Train in place: cross-entropy, Adam, the rate rising first and then falling to 0."""
    steps = len(data) // STEP
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    weight = torch.ones(CLASSES + 1)
    weight[0] = BACKGROUND
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data)).split(STEP)[:steps]:
            loss = F.cross_entropy(net(data.images[chosen]), data.masks[chosen], weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def mean_iou(net: nn.Module, data: Canvas) -> float:
    """Return the intersection over the union of predicted and true pixels, as the mean over the classes."""
    found = torch.cat([net(images).argmax(1) for images in data.images.split(BATCH)])
    classes = range(CLASSES + 1)
    pairs = [((found == c) & (data.masks == c), (found == c) | (data.masks == c)) for c in classes]
    return sum(float(both.sum()) / max(1, int(either.sum())) for both, either in pairs) / len(pairs)


def main() -> None:
    """Train, search the ratios by the mean IoU on held-out pictures, prune, train a little more, tell."""
    given = arguments("Prune a U-Net.", epochs=18)
    train_set, held_out, test_set = draw(given.images, 0), draw(100, 1), draw(200, 2)
    dense = UNet()
    train(dense, train_set, given.epochs)

    task = pocketprune.Task(metric=lambda net: mean_iou(net, held_out), name="mean IoU")
    batches = list(train_set.images.split(BATCH))
    found = pocketprune.search_ratios(dense, batches, given.share, task=task, settings=settings(given))
    pruned = pocketprune.prune_channels(dense, batches, found.ratios).net
    tuned = copy.deepcopy(pruned)
    train(tuned, train_set, max(1, given.epochs // 4), rate=3e-3)

    nets = {"dense": dense, "pruned": pruned, "pruned, trained": tuned}
    show("mean IoU", lambda net: mean_iou(net, test_set), nets, test_set.images[:32])


if __name__ == "__main__":
    main()
