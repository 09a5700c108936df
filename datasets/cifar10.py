"""CIFAR-10 (Krizhevsky 2009), from the official "python version": the folder or the archive."""

import gzip
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from tqdm import tqdm

from datasets.memory import CropFlip, in_memory
from datasets.safe_pickle import load_plain_pickle
from datasets.split import Dataset
from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_FILES = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST_FILE = "test_batch"
LARGEST_ARCHIVE = 2**28  # bytes once inflated; the official one has 186 million
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as most public weights expect


def cifar10(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
    download: bool = False,
) -> Dataset:
    """Return CIFAR-10: 10 classes, (3, 32, 32).

    Augmentation is a random crop of the image padded by 4, and mirroring.

    Args:
        data_dir: the folder `cifar-10-batches-py`, the archive `cifar-10-python.tar.gz`, or the folder of one of them.
        seed: decides which training samples are held out for validation.
        device: where the images are kept.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.
        download: whether to fetch the archive into data_dir if both are missing. Its MD5 sum is checked.

    Raises:
        UserError: files are missing, damaged or of another shape.
    """
    if data_dir is None:
        raise UserError(f"--data_dir: needed for --dataset=cifar10: where {FOLDER} or {ARCHIVE} is")
    batches = _read_all(Path(data_dir).expanduser(), download)
    images = np.concatenate([batches[name][0] for name in TRAIN_FILES])
    labels = np.concatenate([batches[name][1] for name in TRAIN_FILES])
    return in_memory(
        "cifar10",
        (images, labels),
        batches[TEST_FILE],
        num_classes=10,
        mean=MEAN,
        std=STD,
        augmentation=CropFlip(pad=4, flip=True),
        seed=seed,
        device=device,
        nb_smpls_val=nb_smpls_val,
        val_fraction=val_fraction,
    )


def _read_all(data_dir: Path, download: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (images, labels) of the batch files, from the first accepted place that exists."""
    for folder in (data_dir / FOLDER, data_dir):
        if folder.is_dir() and (folder.name == FOLDER or (folder / TEST_FILE).is_file()):
            return {name: _read_file(folder / name) for name in (*TRAIN_FILES, TEST_FILE)}
    if data_dir.is_file():
        return _read_archive(data_dir)
    archive = data_dir / ARCHIVE
    if not archive.is_file():
        if not download:
            raise UserError(f"--data_dir={data_dir}: no {FOLDER} and no {ARCHIVE} there; --download fetches the latter")
        _download(archive)
    return _read_archive(archive)


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            return _parse(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _read_archive(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (images, labels) of the batch files in an archive, without unpacking it to disk."""
    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN_FILES, TEST_FILE)}
    found = {}
    try:
        with gzip.open(path) as file:
            content = file.read(LARGEST_ARCHIVE + 1)
        if len(content) > LARGEST_ARCHIVE:
            raise UserError(f"{path}: grows to more than {LARGEST_ARCHIVE:,} bytes, and CIFAR-10 does not")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                entry = archive.extractfile(member) if name and member.isfile() else None
                if name and entry:
                    found[name] = _parse(entry, f"{path}:{name}")
    except UserError:
        raise
    except Exception as error:  # a damaged one can raise nearly anything
        raise UserError(f"{path}: not a readable .tar.gz archive: {one_line(error)}") from error
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise UserError(f"{path}: holds no {FOLDER}/{missing[0]}")
    return found


def _parse(file: IO[bytes], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 (n, 3, 32, 32), labels int64 (n,)) of one batch file, after a check."""
    content = load_plain_pickle(file, name)
    if not isinstance(content, dict):
        raise UserError(f"{name}: holds a {type(content).__name__}; accepted: a CIFAR-10 batch (a dict)")
    content = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise UserError(f"{name}: 'data' is {found}; accepted: a uint8 array of n x 3072")
    if not isinstance(labels, list) or len(labels) != len(data) or len(data) == 0:
        raise UserError(f"{name}: 'labels' must list one label for each of the {len(data)} images")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise UserError(f"{name}: 'labels' holds something else than the whole numbers 0 to 9")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _download(archive: Path) -> None:
    """Fetch the official archive. It gets its name when it is complete and its MD5 sum is right."""
    part = archive.with_name(archive.name + ".part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=60) as response, part.open("wb") as out:
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm(total=size or None, unit="B", unit_scale=True, desc=archive.name) as bar:
                digest = _copy(response, out, bar.update)
        if digest != MD5:
            raise UserError(f"{URL}: its MD5 sum is {digest}; expected: {MD5}")
        part.replace(archive)
    except OSError as error:
        raise UserError(f"--download: cannot fetch {URL} to {archive}: {one_line(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def _copy(source: IO[bytes], out: IO[bytes], advance: Callable[[int], object]) -> str:
    """Copy a stream and return its MD5 sum. `advance` is called with the size of every chunk."""
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := source.read(1 << 20):
        out.write(chunk)
        digest.update(chunk)
        advance(len(chunk))
    return digest.hexdigest()
