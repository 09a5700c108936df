"""The data sets: `DATASETS`, name -> builder, and `create_dataset`."""

import os
from collections.abc import Callable

import torch

from datasets.checking import checked
from datasets.cifar10 import cifar10
from datasets.digits import digits
from datasets.fashion_mnist import fashion_mnist
from datasets.image_folder import FolderSplit, image_folder, leave_signals
from datasets.memory import CropFlip, TensorSplit, in_memory
from datasets.split import Dataset, Split
from pocketprune.common.errors import UserError
from pocketprune.common.registry import blaming, call_accepted, resolve

__all__ = [
    "DATASETS",
    "CropFlip",
    "Dataset",
    "FolderSplit",
    "Split",
    "TensorSplit",
    "create_dataset",
    "in_memory",
    "leave_signals",
]

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "cifar10": cifar10,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
}


def create_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
    image_size: int | None = None,
    nb_workers: int | None = None,
    download: bool = False,
) -> Dataset:
    """Return the data set called `name`.

    A builder receives those of the keywords that it accepts. None leaves it its own default.

    Args:
        name: a key of `DATASETS`, `path/file.py:callable` or `module:callable`.
        data_dir: the folder of its files.
        seed: decides which training samples are held out for validation.
        device: where the batches are wanted.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.
        image_size: side of the square images of image_folder.
        nb_workers: processes that decode its files.
        download: whether to fetch missing files.

    Raises:
        UserError: the name is unknown, files are missing or damaged, a class has too few samples, or the callable
            fails, returns no Dataset or one whose batches are not what `Split.batches` promises.
    """
    builder = resolve("--dataset", name, DATASETS)
    options = {
        "data_dir": data_dir,
        "seed": seed,
        "device": device,
        "nb_smpls_val": nb_smpls_val,
        "val_fraction": val_fraction,
        "image_size": image_size,
        "nb_workers": nb_workers,
        "download": download,
    }
    with blaming(f"--dataset={name}: the callable failed"):
        dataset = call_accepted(builder, options)
    if not isinstance(dataset, Dataset):
        raise UserError(f"--dataset={name}: must return a datasets.Dataset, not {type(dataset).__name__}")
    return dataset if name in DATASETS else checked(dataset, f"--dataset={name}")
