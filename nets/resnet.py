"""Residual networks for small images: 6n+2 layers in three stages of 16, 32 and 64 channels.

He et al., "Deep Residual Learning" (2015), section 4.2, and "Identity Mappings" (2016) for version 2.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.blocks import WIDTHS, InputShape, blocks_per_stage, conv3x3, initialise, require_choice, require_side

SHORTCUTS = ("projection", "pad")


class PadShortcut(nn.Module):
    """The shortcut without parameters: every stride-th position, with zero channels on both sides."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.pad = ((c_out - c_in) // 2, c_out - c_in - (c_out - c_in) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.pad))


def _shortcut(kind: str, version: int, c_in: int, c_out: int, stride: int, first: bool) -> nn.Module | None:
    """Return a block's shortcut; None for the identity."""
    if kind == "projection" and first:
        conv = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
        return conv if version == 2 else nn.Sequential(conv, nn.BatchNorm2d(c_out))
    if kind == "pad" and (stride != 1 or c_in != c_out):
        return PadShortcut(c_in, c_out, stride)
    return None


class BlockV1(nn.Module):
    """A block of conv, bn, relu, conv, bn, add, relu. Its shortcut runs (and is listed) before the convolutions."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = conv3x3(c_in, c_out, stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv3x3(c_out, c_out)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + shortcut)


class BlockV2(nn.Module):
    """A block of bn, relu, conv, bn, relu, conv, add. A shortcut that changes the shape reads the activated input."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.shortcut = shortcut
        self.conv1 = conv3x3(c_in, c_out, stride)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = conv3x3(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(active))))
        return out + shortcut


class ResNet(nn.Module):
    """The network (N, C, H, W) -> logits (N, num_classes).

    Its parameters are named conv1, bn1, layer{1,2,3}.{i}.{shortcut,conv1,bn1,conv2,bn2}, linear. Version 2 has no `bn1`
    after the stem, but a `bn` before the pooling.
    """

    def __init__(self, version: int, shortcut: str, nb_blocks: int, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.version = version
        self.conv1 = conv3x3(c_in, WIDTHS[0])
        if version == 1:
            self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        stage = partial(_stage, version, shortcut, nb_blocks)
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], 2)
        if version == 2:
            self.bn = nn.BatchNorm2d(WIDTHS[2])
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.version == 1:
            x = torch.relu(self.bn1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        if self.version == 2:
            x = torch.relu(self.bn(x))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(version: int, kind: str, nb_blocks: int, c_in: int, c_out: int, stride: int) -> nn.Sequential:
    block = BlockV1 if version == 1 else BlockV2
    blocks = []
    for i in range(nb_blocks):
        shape = (c_in, c_out, stride) if i == 0 else (c_out, c_out, 1)
        blocks.append(block(*shape, _shortcut(kind, version, *shape, first=i == 0)))
    return nn.Sequential(*blocks)


def resnet(
    *,
    num_classes: int,
    input_shape: InputShape,
    resnet_size: int = 20,
    resnet_version: int = 2,
    resnet_shortcut: str = "projection",
) -> ResNet:
    """Return a CIFAR residual network.

    The defaults are PocketFlow's: pre-activation blocks and a projection shortcut in the first block of *each* stage,
    which makes 22 convolutions for size 20. Version 1 with `pad` is that of He et al., with the parameter names of most
    public weights.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        resnet_size: layers, 6n+2.
        resnet_version: 1 for post-activation blocks, 2 for pre-activation blocks.
        resnet_shortcut: one of `SHORTCUTS`.

    Raises:
        UserError: the size, version or shortcut is not offered, or the images have fewer than 4x4 pixels.
    """
    require_choice("--resnet_version", resnet_version, (1, 2))
    require_choice("--resnet_shortcut", resnet_shortcut, SHORTCUTS)
    require_side("resnet", input_shape, 4)
    nb_blocks = blocks_per_stage("--resnet_size", resnet_size)
    return ResNet(resnet_version, resnet_shortcut, nb_blocks, input_shape[0], num_classes)
