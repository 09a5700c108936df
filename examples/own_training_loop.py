"""A training loop of one's own: masks grow while it trains, and at the end the masked channels are removed.

The loop is plain PyTorch; two calls in it are the controller's. Metric: the accuracy.

python -m examples.own_training_loop
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import pocketprune
from examples.telling import arguments, show

BATCH = 50


def data() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits (1797, 1, 8, 8), shuffled, and their labels."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.images / 8.0 - 1.0, dtype=torch.float32)[order, None], torch.tensor(digits.target)[order]


def network(width: int = 24) -> nn.Module:
    """Return a plain convolutional network."""
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10))


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    return float((net(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train dense, then with masks up to half of the MACs, remove what is masked, tell."""
    given = arguments("Prune a network inside one's own training loop.", epochs=8)
    images, labels = data()
    seen, answers, test_images, test_labels = images[:1200], labels[:1200], images[1200:], labels[1200:]
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)

    def epoch(controller: pocketprune.Controller | None = None) -> None:
        net.train()
        for chosen in torch.randperm(len(seen)).split(BATCH):
            loss = F.cross_entropy(net(seen[chosen]), answers[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if controller is not None:
                controller.step()  # the optimizer has moved what is masked: back to zero

    for _ in range(given.epochs):
        epoch()
    dense = copy.deepcopy(net).eval()

    schedule = {"name": "linear", "steps": max(1, given.epochs // 2)}
    policy = {"macs": 1 - given.share, "criterion": "l2", "schedule": schedule}
    controller = pocketprune.compress(net, seen[:2], policy)
    for _ in range(given.epochs):
        controller.epoch_step()  # masks grow up to half of the epochs
        epoch(controller)
    pruned = controller.remove()

    nets = {"dense": dense, "masked and removed": pruned}
    show("accuracy", lambda net: accuracy(net, test_images, test_labels), nets, test_images[:32])


if __name__ == "__main__":
    main()
