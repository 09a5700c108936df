"""Measuring a network on a split, and recording what a run does (TensorBoard)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.training import distributed

TOP5_FROM_CLASSES = 20  # below that, five guesses say little


class Split(Protocol):
    """What training and evaluation ask of a data split.

    A resumed run sees the batches that an uninterrupted one sees, because the order of the images is a function of
    (seed, epoch) alone, and the augmentation of a batch one of (seed, epoch, its number).
    """

    def __len__(self) -> int: ...

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
        """Yield (images (b, C, H, W) float32 normalised, labels (b,) int64); `start` skips that many batches.

        Of `world_size` processes, the one of number `rank` gets every world_size-th sample of the one global order.
        """
        ...


@dataclass(frozen=True)
class Metrics:
    """What `evaluate` measures.

    Attributes:
        accuracy: share of the images whose label has the largest logit, in [0, 1].
        loss: mean cross-entropy, in nats.
        samples: number of images.
        top5: share of the images whose label is among the five largest logits. None below 20 classes.
    """

    accuracy: float
    loss: float
    samples: int
    top5: float | None = None

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        return f"accuracy {self.accuracy:.2%}{top5}, loss {self.loss:.4f} on {self.samples} images"


def evaluate(
    net: nn.Module,
    split: Split,
    batch_size: int,
    *,
    device: torch.device | None = None,
    amp: str = "off",
    progress: bool = True,
    label: str = "evaluate",
) -> Metrics:
    """Measure accuracy and mean cross-entropy of `net` on all of `split`. Several processes share the work.

    The sums stay on the device until the end: no batch waits for the one before it.

    Args:
        net: the network; it lies on `device`.
        split: the images.
        batch_size: images a step in each process. It changes the time, not the result.
        device: where to compute; the network's own device by default.
        amp: "off", or "bf16" for autocast.
        progress: whether the first process shows a progress bar.
        label: what the bar says.

    Returns:
        The metrics over all images; they are the same in every process.

    Raises:
        UserError: an empty split, or a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"{batch_size} given; it must be at least 1", argument="batch_size")
    if len(split) == 0:
        raise UserError("it holds no images", argument="split")
    device = device or device_of(net)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    world = distributed.world_size()
    batches = tqdm(
        split.batches(batch_size, rank=distributed.rank(), world_size=world),
        label,
        math.ceil(len(split) / (batch_size * world)),
        disable=not progress or not distributed.is_main(),
        leave=False,
        delay=1,
    )
    with evaluation_mode(net), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16"):
        for images, labels in batches:
            logits = net(images.to(device, non_blocking=True)).float()
            sums += _batch_sums(logits, labels.to(device, non_blocking=True))
    correct, loss, within, samples = distributed.all_reduce_sum(sums).tolist()
    top5 = within / samples if logits.shape[1] >= TOP5_FROM_CLASSES else None
    return Metrics(accuracy=correct / samples, loss=loss / samples, samples=int(samples), top5=top5)


def _batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (correct, loss, correct within five guesses, images), summed over the batch: float64 (4,)."""
    correct = (logits.argmax(1) == labels).sum()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    guesses = min(5, logits.shape[1])
    within = (logits.topk(guesses, 1).indices == labels[:, None]).sum()
    return torch.stack([correct, loss, within, torch.full_like(correct, len(labels))]).double()


class Recorder(Protocol):
    """Something that a run writes its figures to. Keys are namespaced: `train/loss`, `layer/conv1/error_after`."""

    def record(self, key: str, value: float | Tensor, step: int) -> None:
        """Write a number."""
        ...

    def text(self, key: str, text: str, step: int) -> None:
        """Write Markdown."""
        ...

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None:
        """Write an image (H, W, 3), uint8 in [0, 255] or float in [0, 1]."""
        ...

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None:
        """Write the distribution of `values`."""
        ...

    def flush(self) -> None:
        """Bring what was written onto the disk."""
        ...

    def close(self) -> None:
        """Flush, and write no more."""
        ...


class NullRecorder:
    """A recorder that writes nothing: for library use, for tests and for every process but the first."""

    def record(self, key: str, value: float | Tensor, step: int) -> None:
        """Do nothing."""

    def text(self, key: str, text: str, step: int) -> None:
        """Do nothing."""

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None:
        """Do nothing."""

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoardRecorder:
    """A recorder that writes event files under `directory`, from a thread of its own.

    Raises:
        UserError: the folder cannot be written, now or in a later call.
    """

    def __init__(self, directory: str | Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import: not before it is needed

        self._directory = directory
        with self._writing():
            self._writer = SummaryWriter(str(directory))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._directory}: {error.strerror or error}") from error

    def record(self, key: str, value: float | Tensor, step: int) -> None:
        """Write a number."""
        with self._writing():
            self._writer.add_scalar(key, value, step)

    def text(self, key: str, text: str, step: int) -> None:
        """Write Markdown."""
        with self._writing():
            self._writer.add_text(key, text, step)

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None:
        """Write an image (H, W, 3), uint8 in [0, 255] or float in [0, 1]."""
        with self._writing():
            self._writer.add_image(key, image, step, dataformats="HWC")

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None:
        """Write the distribution of `values`."""
        with self._writing():
            self._writer.add_histogram(key, values, step)

    def flush(self) -> None:
        """Bring what was written onto the disk."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Flush, and end the thread."""
        with self._writing():
            self._writer.close()


def create_recorder(directory: str | Path | None) -> Recorder:
    """Return a TensorBoard recorder in the first process if a folder is given, else one that writes nothing."""
    if directory is None or not distributed.is_main():
        return NullRecorder()
    return TensorBoardRecorder(directory)
