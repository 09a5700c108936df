"""The warnings about calibration images that are unlike those of the training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pocketprune import PruneResult, prune_channels
from pocketprune.channel_pruning.measuring import PruningWarning


def trained_on(images: Tensor, classes: int = 10) -> nn.Sequential:
    """A network whose batch norm has seen these images."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(128, classes))
    net(images)
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(80, 3, 8, 8, generator=generator) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)


def pruned(net: nn.Module, images: Tensor) -> PruneResult:
    return prune_channels(net, images.split(40), 0.5)


def test_images_of_the_training_are_not_strange(images: Tensor) -> None:
    assert not [w for w in pruned(trained_on(images), images).warnings if "calibration images are not" in w]


@pytest.mark.parametrize("change", [lambda x: x * 0.25, lambda x: x * 4, lambda x: x + 10])
def test_another_normalisation_is_noticed(images: Tensor, change) -> None:
    with pytest.warns(PruningWarning, match=r"not like those of the training: their first batch norm '1' sees means"):
        found = pruned(trained_on(images), change(images)).warnings
    assert len([w for w in found if "normalised otherwise" in w]) == 1


def test_images_of_one_class_are_noticed(images: Tensor) -> None:
    net = trained_on(images)
    with torch.no_grad():
        net[-1].bias[7] += 100
    with pytest.warns(PruningWarning, match=r"largest output is number 7 for 100% of 64 calibration images"):
        pruned(net, images)


def test_few_outputs_are_no_classes(images: Tensor) -> None:
    net = trained_on(images, classes=4)
    with torch.no_grad():
        net[-1].bias[2] += 100
    assert not [w for w in pruned(net, images).warnings if "largest output" in w]
