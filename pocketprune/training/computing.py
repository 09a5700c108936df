"""How a training computes: number formats, memory layout, compilation. All of it is undone after the training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from pocketprune.training import distributed
from pocketprune.training.state import TrainSettings


@contextmanager
def precision(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Switch TF32 on or off on CUDA, inside only: the statistics of pruning need full float32 products."""
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
    _lay_out(net, torch.channels_last)
    try:
        yield
    finally:
        _lay_out(net, torch.contiguous_format)


def _lay_out(net: nn.Module, layout: torch.memory_format) -> None:
    net.to(memory_format=layout)  # type: ignore[call-overload]  # torch documents it and declares it not


def as_called(net: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """Return `net` as a step calls it: its gradients are averaged over the processes, and it is compiled on request."""
    forward = distributed.data_parallel(net, device)
    return cast(nn.Module, torch.compile(forward)) if settings.compile else forward


def on_device(images: Tensor, labels: Tensor, settings: TrainSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """Send a batch to the device, without waiting for it. The images get the training's memory layout."""
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    images = images.to(device, non_blocking=True, memory_format=layout)
    return images, labels.to(device, non_blocking=True)
