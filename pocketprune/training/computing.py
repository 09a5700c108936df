"""How a training computes: number formats, memory layout, compilation. Nothing of it outlasts the training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pocketprune.training import distributed
from pocketprune.training.state import TrainSettings


@contextmanager
def precision(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Switch TF32 on or off on CUDA, inside only: the statistics of pruning must never meet it."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = settings.tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def memory_format(net: nn.Module, settings: TrainSettings) -> Iterator[None]:
    """Lay the weights out channels-last, inside only: code after the training may rely on ordinary strides."""
    if not settings.channels_last:
        yield
        return
    net.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        net.to(memory_format=torch.contiguous_format)


def as_called(net: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """Return the network as a step calls it: its gradients averaged over the processes, and compiled if asked for."""
    forward = distributed.data_parallel(net, device)
    return torch.compile(forward) if settings.compile else forward


def on_device(images: Tensor, labels: Tensor, settings: TrainSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """Send a batch to the device, the images in the training's layout, without waiting for it."""
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    images = images.to(device, non_blocking=True, memory_format=layout)
    return images, labels.to(device, non_blocking=True)
