"""Small networks and calibration images for the tests of the engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import nets


def resnet(version: int = 1, shortcut: str = "pad", size: int = 8) -> nn.Module:
    """A CIFAR ResNet whose batch norms are away from their neutral state."""
    torch.manual_seed(0)
    return shaken(
        nets.create_net(
            "resnet",
            num_classes=10,
            input_shape=(3, 16, 16),
            resnet_size=size,
            resnet_version=version,
            resnet_shortcut=shortcut,
        )
    )


def shaken(net: nn.Module) -> nn.Module:
    """The network in eval mode, its norms with random statistics and affine parameters."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


def images(count: int = 32, batch: int = 16, side: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, side, side, generator=generator) for _ in range(count // batch)]
