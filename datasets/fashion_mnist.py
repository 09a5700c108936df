"""Fashion-MNIST (Xiao et al. 2017) from its four idx.gz files."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch

from datasets.memory import CropFlip, in_memory
from datasets.split import Dataset
from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

MEAN, STD = (0.2860,), (0.3530,)
SIDE = 28
MOST_SAMPLES = 600_000  # ten times the official training set


def fashion_mnist(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
) -> Dataset:
    """Return Fashion-MNIST: 10 classes, (1, 28, 28).

    Augmentation is a random crop of the image padded by 2, and mirroring.

    Args:
        data_dir: the folder of `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.
        seed: decides which training samples are held out for validation.
        device: where the images are kept.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.

    Raises:
        UserError: files are missing, damaged or of another shape.
    """
    if data_dir is None:
        raise UserError("--data_dir: needed for --dataset=fashion_mnist: where train-images-idx3-ubyte.gz is")
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_dir={data_dir}: no such folder")
    return in_memory(
        "fashion_mnist",
        _read_part(folder, "train"),
        _read_part(folder, "t10k"),
        num_classes=10,
        mean=MEAN,
        std=STD,
        augmentation=CropFlip(pad=2, flip=True),
        seed=seed,
        device=device,
        nb_smpls_val=nb_smpls_val,
        val_fraction=val_fraction,
    )


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (images (n, 1, 28, 28), labels (n,)), both uint8, of the training or the test set."""
    image_file, label_file = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    images, labels = _read_idx(image_file, ndim=3), _read_idx(label_file, ndim=1)
    if len(labels) != len(images) or len(images) == 0:
        raise UserError(f"{label_file}: {len(labels)} labels for {len(images)} images in {image_file.name}")
    if labels.max() > 9:
        raise UserError(f"{label_file}: holds the label {labels.max()}; accepted: 0 to 9")
    return images[:, None], labels


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """Return the uint8 array of `ndim` axes in a gzipped idx file (0x000008, ndim, big-endian sizes, data)."""
    try:
        with gzip.open(path) as file:
            shape = _read_shape(file, path, ndim)
            expected = math.prod(shape)
            content = bytearray(file.read(expected))
            more = "more than " if file.read(1) else ""
    except FileNotFoundError as error:
        raise UserError(f"--data_dir: no {path.name} in {path.parent}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable gzip file: {one_line(error)}") from error
    if more or len(content) < expected:
        found = f"{more}{len(content)} bytes of data"
        raise UserError(f"{path}: {found}; accepted: {expected}, as its header {shape} says")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_shape(file: gzip.GzipFile, path: Path, ndim: int) -> tuple[int, ...]:
    """Return the sizes in an idx file's header. Refuse those that no such data set has."""
    header = file.read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim or header[:4] != bytes([0, 0, 8, ndim]):
        accepted = f"000008{ndim:02x}, an idx file of bytes"
        raise UserError(f"{path}: begins with {header[:4].hex() or 'nothing'}; accepted: {accepted}")
    count, *sides = np.frombuffer(header, dtype=">u4", offset=4).tolist()
    if count > MOST_SAMPLES:
        raise UserError(f"{path}: {count:,} samples; accepted: at most {MOST_SAMPLES:,}")
    if ndim == 3 and sides != [SIDE, SIDE]:
        raise UserError(f"{path}: images are {sides[0]}x{sides[1]}; accepted: {SIDE}x{SIDE}")
    return count, *sides
