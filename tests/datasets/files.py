"""Small synthetic copies of the data sets' official files."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR_FILES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def cifar_batch(size: int, seed: int) -> dict[bytes, object]:
    """A batch of the official form, labels going round."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (size, 3072), dtype=np.uint8)
    return {b"data": data, b"labels": [i % 10 for i in range(size)], b"batch_label": b"x", b"filenames": [b"y"]}


def write_cifar(root: Path, size: int = 40, protocol: int = 2) -> Path:
    """`root`/cifar-10-batches-py with six batches."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for k, name in enumerate(CIFAR_FILES):
        (folder / name).write_bytes(pickle.dumps(cifar_batch(size, k), protocol=protocol))
    return folder


def write_cifar_archive(root: Path, names: list[str] | None = None) -> Path:
    """`root`/cifar-10-python.tar.gz with the batches of those names."""
    path = root / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for k, name in enumerate(CIFAR_FILES):
            if names is None or name in names:
                content = pickle.dumps(cifar_batch(40, k), protocol=2)
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def idx(array: np.ndarray) -> bytes:
    """An idx file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_fashion(root: Path, train: int = 60, test: int = 30, side: int = 28) -> Path:
    """The four files, labels going round."""
    rng = np.random.default_rng(0)
    for part, size in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (size, side, side))
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(size) % 10)))
    return root


def write_images(root: Path, classes: str = "abc", train: int = 6, val: int = 3) -> Path:
    """train/ and val/ with a folder per class; pictures of several sizes, modes and formats."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(40, 200, 2)
                picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
                mode, suffix = [("RGB", "jpg"), ("L", "JPEG"), ("RGBA", "png")][i % 3]
                picture.convert(mode).save(root / part / name / f"{i}.{suffix}")
            (root / part / name / "readme.txt").write_text("not an image")
    return root
