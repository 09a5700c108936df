"""The plain counterpart of the CIFAR residual networks: the same layers without shortcuts.

He et al., "Deep Residual Learning" (2015), section 4.2.
"""

import torch
from torch import Tensor, nn

from nets.blocks import WIDTHS, InputShape, blocks_per_stage, conv3x3, initialise, require_side


class PlainBlock(nn.Module):
    """A block of conv, bn, relu, conv, bn, relu."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(c_in, c_out, stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv3x3(c_out, c_out)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))


class Plain(nn.Module):
    """The network (N, C, H, W) -> logits (N, num_classes), with the parameter names of the residual one."""

    def __init__(self, nb_blocks: int, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(c_in, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(nb_blocks, WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = _stage(nb_blocks, WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = _stage(nb_blocks, WIDTHS[1], WIDTHS[2], 2)
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(nb_blocks: int, c_in: int, c_out: int, stride: int) -> nn.Sequential:
    later = [PlainBlock(c_out, c_out, 1) for _ in range(nb_blocks - 1)]
    return nn.Sequential(PlainBlock(c_in, c_out, stride), *later)


def plain(*, num_classes: int, input_shape: InputShape, resnet_size: int = 20) -> Plain:
    """Return a plain network.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        resnet_size: layers, 6n+2.

    Raises:
        UserError: the size is another one, or the images have fewer than 4x4 pixels.
    """
    require_side("plain", input_shape, 4)
    return Plain(blocks_per_stage("--resnet_size", resnet_size), input_shape[0], num_classes)
