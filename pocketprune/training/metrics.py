"""Measuring a network on a split, and writing down what a run does (TensorBoard)."""

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

    `batches` yields (images (b, C, H, W) float32 normalised, labels (b,) int64). The order is a pure function
    of (seed, epoch), the augmentation of a batch one of (seed, epoch, its number), and `start` skips that
    many batches: so a resumed run sees what it would have seen. With world_size > 1 every process gets every
    world_size-th sample of the one global order.
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
    ) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Metrics:
    """Shares in [0, 1] and the mean cross-entropy in nats, over `samples` images; top5 from 20 classes on."""

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
    """Measure accuracy and mean cross-entropy of `net` on all of `split`; several processes share the work.

    The sums stay on the device until the end: no batch waits for the one before it.

    Args:
        batch_size: images a step in each process; it changes the time, not the result.
        device: where to compute, and where the network lies; its own device by default.
        amp: "off", or "bf16" for autocast.
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
    """Return (correct, loss, correct within five guesses, images), float64, on the device."""
    correct = (logits.argmax(1) == labels).sum()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    guesses = min(5, logits.shape[1])
    within = (logits.topk(guesses, 1).indices == labels[:, None]).sum()
    return torch.stack([correct, loss, within, torch.full_like(correct, len(labels))]).double()


class Recorder(Protocol):
    """Where a run writes what it sees. Keys are namespaced: `train/loss`, `layer/conv1/error_after`."""

    def record(self, key: str, value: float | Tensor, step: int) -> None: ...

    def text(self, key: str, text: str, step: int) -> None: ...

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None: ...

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class NullRecorder:
    """Writes nothing: for library use, for tests and for every process but the first."""

    def record(self, key: str, value: float | Tensor, step: int) -> None:
        pass

    def text(self, key: str, text: str, step: int) -> None:
        pass

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None:
        pass

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardRecorder:
    """Writes event files under `directory`, from a thread of its own.

    Raises:
        UserError: the folder cannot be written, now or by the time of a later call.
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
        with self._writing():
            self._writer.add_histogram(key, values, step)

    def flush(self) -> None:
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        with self._writing():
            self._writer.close()


def create_recorder(directory: str | Path | None) -> Recorder:
    """Return a TensorBoard recorder in the first process if a folder is given; else one that writes nothing."""
    wanted = directory is not None and distributed.is_main()
    return TensorBoardRecorder(directory) if wanted else NullRecorder()
