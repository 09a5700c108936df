"""A small split with the data sets' interface, and a small network, for the training tests."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class TinySplit:
    """`count` images (3, 8, 8), noisy copies of one pattern a class; augmentation adds more noise."""

    def __init__(self, count: int = 96, classes: int = 4, noise: float = 0.5) -> None:
        generator = torch.Generator().manual_seed(5)
        patterns = torch.randn(classes, 3, 8, 8, generator=generator)
        self.labels = torch.arange(count) % classes
        self.images = patterns[self.labels] + noise * torch.randn(count, 3, 8, 8, generator=generator)

    def double(self) -> "TinySplit":
        self.images = self.images.double()
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for number, indices in enumerate(order[rank::world_size].split(batch_size)):
            if number < start or (drop_last and len(indices) < batch_size):
                continue
            images = self.images[indices]
            if augment:
                generator = torch.Generator().manual_seed(10**6 * seed + 1000 * epoch + number)
                images = images + 0.1 * torch.randn(images.shape, generator=generator)
            yield images, self.labels[indices]


def conv_net(classes: int = 4, *, norm: bool = True, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    """Equal to the bit, buffers included."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
