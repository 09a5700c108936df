"""Data sets that fit on the device: one uint8 tensor, of which batches are augmented and normalised there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.split import Dataset, Plan, Split, hold_out
from pocketprune.common.errors import UserError

Augmentation = Callable[[Tensor, Tensor], Tensor]
"""(uint8 images (n, C, H, W), uniforms (n, 3) in [0, 1)) -> uint8 images (n, C, H, W)."""


@dataclass(frozen=True)
class CropFlip:
    """An augmentation that shifts every image by up to `pad` pixels each way, and mirrors half of them if `flip`.

    The pixels that come in from outside are zero.
    """

    pad: int
    flip: bool

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Return the augmented images (n, C, H, W), by uniforms (n, 3) in [0, 1)."""
        n, _, height, width = images.shape
        padded = F.pad(images, (self.pad,) * 4)
        row, column = (uniforms[:, :2].T * (2 * self.pad + 1)).long()
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every crop of every image
        crops = windows[torch.arange(n, device=images.device), :, row, column]
        if not self.flip:
            return crops
        return torch.where(uniforms[:, 2, None, None, None] < 0.5, crops.flip(3), crops)


class TensorSplit(Split):
    """A split that is one tensor on the device.

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers (N,).
        mean: per channel, of pixels scaled to [0, 1].
        std: standard deviation per channel, likewise.
        augmentation: what is done to a batch's images on request.
        device: where the tensor is kept.

    Raises:
        UserError: the images have another type, or another number than the labels.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            found = f"{images.dtype} {tuple(images.shape)} for {len(labels)} labels"
            raise UserError(f"images: {found}; accepted: torch.uint8 (N, C, H, W) for N labels")
        self.device = torch.device(device)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device, torch.int64)
        self.augmentation = augmentation
        spread = torch.tensor(std, dtype=torch.float64).view(1, -1, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1)
        self._scale = (1 / (255 * spread)).float().to(self.device)
        self._shift = (-centre / spread).float().to(self.device)

    def __len__(self) -> int:
        return len(self.labels)

    def _iterate(self, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
        samples = plan.samples(len(self)).to(self.device)
        for b in plan.batch_range(len(self)):
            chosen = samples[b * plan.batch_size : (b + 1) * plan.batch_size]
            images = self.images[chosen]
            if plan.augment and self.augmentation is not None:
                uniforms = plan.uniforms(b, columns=3)[: len(chosen)]
                images = self.augmentation(images, uniforms.to(self.device, non_blocking=True))
            yield images.float().mul_(self._scale).add_(self._shift), self.labels[chosen]


def in_memory(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
) -> Dataset:
    """Return a data set of arrays. Its validation split is held out of `train`.

    Args:
        name: of the data set.
        train: (images uint8 (N, C, H, W), labels (N,)).
        test: likewise.
        num_classes: number of classes.
        mean: per channel, of pixels scaled to [0, 1].
        std: standard deviation per channel, likewise.
        augmentation: that of training images.
        seed: decides which training samples are held out for validation.
        device: where the images are kept.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.

    Raises:
        UserError: labels are not 0 to num_classes - 1, or holding out samples would leave a class empty.
    """
    images, labels = torch.from_numpy(train[0]), _labels(train[1], num_classes, "training")
    kept, held = hold_out(labels, num_classes, seed=seed, nb_smpls_val=nb_smpls_val, val_fraction=val_fraction)

    def split(images: Tensor, labels: Tensor) -> TensorSplit:
        return TensorSplit(images, labels, mean=mean, std=std, augmentation=augmentation, device=device)

    fitted = split(images[kept], labels[kept])
    _, channels, height, width = images.shape
    return Dataset(
        name=name,
        num_classes=num_classes,
        input_shape=(channels, height, width),
        train=fitted,
        val=split(images[held], labels[held]),
        test=split(torch.from_numpy(test[0]), _labels(test[1], num_classes, "test")),
    )


def _labels(given: np.ndarray, num_classes: int, part: str) -> Tensor:
    labels = torch.from_numpy(np.asarray(given, dtype=np.int64))
    odd = labels[(labels < 0) | (labels >= num_classes)]
    if len(odd):
        raise UserError(f"labels: the {part} set has the label {int(odd[0])}; accepted: 0 to {num_classes - 1}")
    return labels
