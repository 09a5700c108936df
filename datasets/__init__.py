"""The data sets: `DATASETS`, from name to builder, and `create_dataset`."""

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
    """The data set called `name`: a key of `DATASETS`, `path/file.py:callable` or `module:callable`.

    A builder receives those of the keywords that it accepts, and None leaves it its own default.
    seed: fixes which training samples are held out for validation: nb_smpls_val of them, or val_fraction of
    all. Raises UserError for an unknown name (with the nearest one), for missing or damaged files, for too
    few samples in a class, and for a callable that fails, returns no Dataset or one whose batches are not what
    `Split.batches` promises.
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
