"""Checks of a caller's own data set, before any work is done with it and while it is used."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from datasets.image_folder import FolderSplit
from datasets.memory import TensorSplit
from datasets.split import Dataset, Plan, Split
from pocketprune.common.errors import UserError
from pocketprune.common.registry import blaming

PARTS = ("train", "val", "test")
OURS = (TensorSplit, FolderSplit)  # of their batches, only the labels need a check


def checked(dataset: Dataset, source: str) -> Dataset:
    """Return the data set after a check of one batch of each split.

    Splits of a caller's own class are wrapped, so that every later batch is checked as well.

    Args:
        dataset: the data set.
        source: the beginning of an error's message.

    Raises:
        UserError: a split is empty or fails, or its images or labels are not what `Split.batches` promises.
    """
    classes, shape = dataset.num_classes, dataset.input_shape
    if type(classes) is not int or classes < 1:
        raise UserError(f"{source}: num_classes is {classes!r}; expected: a whole number of 1 or more")
    if not isinstance(shape, tuple | list) or len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
        raise UserError(f"{source}: input_shape is {shape!r}; expected: (channels, height, width)")
    channels, height, width = shape
    dataset = replace(dataset, input_shape=(channels, height, width))
    train, val, test = (_checked_split(dataset, part, f"{source}: its {part} split") for part in PARTS)
    return replace(dataset, train=train, val=val, test=test)


def _checked_split(dataset: Dataset, part: str, where: str) -> Split:
    split = getattr(dataset, part)
    with blaming(f"{where} fails"):
        if len(split) < 1:
            raise UserError(f"{where} is empty")
        if type(split) in OURS:
            _check_labels(split.labels, dataset.num_classes, where)
        batch = next(iter(split.batches(2)), None)
    if batch is None:
        raise UserError(f"{where} has no batch though its length is {len(split)}")
    images, labels = _check_batch(batch, dataset, where)
    _check_labels(labels, dataset.num_classes, where)
    if not images.isfinite().all():
        raise UserError(f"{where} has images with NaN or infinite values")
    return split if type(split) in OURS else WatchedSplit(split, dataset, where)


class WatchedSplit(Split):
    """A caller's own split, of which every batch is checked."""

    def __init__(self, split: Split, dataset: Dataset, where: str) -> None:
        self._split, self._dataset, self._where = split, dataset, where
        self.device = getattr(split, "device", torch.device("cpu"))

    def __len__(self) -> int:
        return len(self._split)

    def _iterate(self, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._split.batches(**asdict(plan)):
            images, labels = _check_batch(batch, self._dataset, self._where)
            if not labels.is_cuda:  # to read them there would have every step wait for the GPU
                _check_labels(labels, self._dataset.num_classes, self._where)
            yield images, labels


def _check_batch(batch: Any, dataset: Dataset, where: str) -> tuple[Tensor, Tensor]:
    """Return images and labels, or raise UserError if they are not what `Split.batches` promises."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise UserError(f"{where} gives a {type(batch).__name__}; expected: (images, labels), two tensors")
    images, labels = batch
    if images.dtype != torch.float32 or images.dim() != 4 or tuple(images.shape[1:]) != dataset.input_shape:
        expected = f"torch.float32 (n, {', '.join(map(str, dataset.input_shape))})"
        raise UserError(f"{where} gives images {images.dtype} {tuple(images.shape)}; expected: {expected}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        expected = f"torch.int64 ({len(images)},)"
        raise UserError(f"{where} gives labels {labels.dtype} {tuple(labels.shape)}; expected: {expected}")
    return images, labels


def _check_labels(labels: Tensor, classes: int, where: str) -> None:
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < 0 or high >= classes:
        raise UserError(f"{where} has the label {low if low < 0 else high}; accepted: 0 to {classes - 1}")
