"""Residual networks for ImageNet (He et al. 2015, table 1), with the parameter names of torchvision's.

The stride of a bottleneck is in its 3x3 convolution, as in torchvision's weights.
"""

import torch
from torch import Tensor, nn

from nets.blocks import InputShape, conv3x3, initialise, require_choice, require_side


class BasicBlock(nn.Module):
    """A block of two 3x3 convolutions and a shortcut, which runs (and is listed) before them."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample
        self.conv1 = conv3x3(c_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """A block of 1x1, 3x3 and 1x1 convolutions, the last one four times as wide, and a shortcut, which runs first."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + shortcut)


SIZES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNetImageNet(nn.Module):
    """The network (N, C, H, W) -> logits (N, num_classes), with five halvings of the map and a global pooling."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], c_in: int, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, depths[0], 64, 64, 1)
        self.layer2 = _stage(block, depths[1], 64 * block.expansion, 128, 2)
        self.layer3 = _stage(block, depths[2], 128 * block.expansion, 256, 2)
        self.layer4 = _stage(block, depths[3], 256 * block.expansion, 512, 2)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _stage(block: type[BasicBlock] | type[Bottleneck], depth: int, c_in: int, width: int, stride: int) -> nn.Sequential:
    c_out = width * block.expansion
    downsample = None
    if stride != 1 or c_in != c_out:
        downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    first = block(c_in, width, stride, downsample)
    return nn.Sequential(first, *(block(c_out, width, 1, None) for _ in range(depth - 1)))


def resnet_imagenet(*, num_classes: int, input_shape: InputShape, resnet_size: int = 18) -> ResNetImageNet:
    """Return a ResNet-18, -34 or -50.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        resnet_size: 18, 34 or 50.

    Raises:
        UserError: the size is another one, or the images have fewer than 32x32 pixels.
    """
    require_choice("--resnet_size", resnet_size, tuple(SIZES))
    require_side("resnet_imagenet", input_shape, 32)
    return ResNetImageNet(*SIZES[resnet_size], input_shape[0], num_classes)
