"""Measuring a network on a split, and writing down what a run does (TensorBoard)."""

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

from pocketprune.errors import UserError
from pocketprune.training import distributed

TOP5_FROM_CLASSES = 20  # below that, five guesses say little


class Split(Protocol):
    """What training and evaluation ask of a data split. See `batches` for what makes a resumed run exact.

    `batches` yields (images (b, C, H, W) float32 normalised, labels (b,) int64). The order is a pure function of
    (seed, epoch), the augmentation of a batch one of (seed, epoch, its index); `start` skips that many batches. With
    world_size > 1 every process gets every world_size-th sample of the one global order.
    """

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, *, seed: int = 0, epoch: int = 0, start: int = 0, shuffle: bool = False,
        augment: bool = False, drop_last: bool = False, rank: int = 0, world_size: int = 1,
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


def device_of(net: nn.Module) -> torch.device:
    """Where the network's first parameter (or buffer) lives; the CPU for a network without any."""
    for tensor in (*net.parameters(), *net.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, and each back in its own mode after: parts may be frozen on purpose."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluate(
    net: nn.Module, split: Split, batch_size: int, *, device: torch.device | None = None, amp: str = "off",
    progress: bool = True, label: str = "evaluate",
) -> Metrics:
    """Accuracy and mean cross-entropy of `net` on all of `split`; under several processes each measures its share.

    The sums stay on the device until the end: no batch waits for the one before it.

    Args:
        batch_size: images a step in each process; it changes the time, not the result.
        device: where to compute; the network's own by default.
        amp: "off", or "bf16" for autocast.
    Raises:
        UserError: an empty split, or a batch size below 1.
    """
    if batch_size < 1 or len(split) == 0:
        raise UserError(f"evaluate: batch_size={batch_size} on {len(split)} images; both must be at least 1")
    device = device or device_of(net)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    world = distributed.world_size()
    batches = split.batches(batch_size, rank=distributed.rank(), world_size=world)
    total = -(-len(split) // (batch_size * world))
    hidden = not progress or not distributed.is_main()
    with evaluating(net), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16"):
        for images, labels in tqdm(batches, label, total=total, disable=hidden, leave=False, delay=1):
            labels = labels.to(device, non_blocking=True)
            sums += _batch_sums(net(images.to(device, non_blocking=True)).float(), labels)
    return _finish(distributed.all_reduce_sum(sums).tolist())


def _batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """(correct, summed loss, correct within five or -1 a sample, samples) as float64 on the device."""
    correct = (logits.argmax(1) == labels).sum()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    if logits.shape[1] >= TOP5_FROM_CLASSES:
        within = (logits.topk(5, 1).indices == labels[:, None]).sum()
    else:
        within = torch.full_like(correct, -len(labels))
    return torch.stack([correct.double(), loss.double(), within.double(), torch.full_like(correct, len(labels)).double()])


def _finish(sums: list[float]) -> Metrics:
    correct, loss, within, samples = sums
    top5 = within / samples if within >= 0 else None
    return Metrics(accuracy=correct / samples, loss=loss / samples, samples=int(samples), top5=top5)


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
    """Writes event files under `directory`; TensorBoard is imported here and not before, for it takes a second.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, directory: str | Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(directory))
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror or error}") from error

    def record(self, key: str, value: float | Tensor, step: int) -> None:
        self._writer.add_scalar(key, value, step)

    def text(self, key: str, text: str, step: int) -> None:
        """Markdown."""
        self._writer.add_text(key, text, step)

    def image(self, key: str, image: np.ndarray | Tensor, step: int) -> None:
        """(H, W, 3), uint8 in [0, 255] or float in [0, 1]."""
        self._writer.add_image(key, image, step, dataformats="HWC")

    def histogram(self, key: str, values: np.ndarray | Tensor, step: int) -> None:
        self._writer.add_histogram(key, values, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def create_recorder(directory: str | Path | None) -> Recorder:
    """A TensorBoard recorder in the first process when a folder is given; one that writes nothing elsewhere."""
    return TensorBoardRecorder(directory) if directory is not None and distributed.is_main() else NullRecorder()
