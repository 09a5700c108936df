"""Fashion-MNIST files: the official form, and every kind of damage."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from datasets import create_dataset
from pocketprune.common.errors import UserError
from tests.datasets.files import idx, write_fashion

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def test_the_official_files(tmp_path: Path) -> None:
    fashion = create_dataset("fashion_mnist", data_dir=write_fashion(tmp_path), nb_smpls_val=10)
    assert (len(fashion.train), len(fashion.val), len(fashion.test)) == (50, 10, 30)
    assert (fashion.num_classes, fashion.input_shape) == (10, (1, 28, 28))
    expected = np.frombuffer(gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    assert np.array_equal(fashion.test.images.numpy().ravel(), expected)
    assert fashion.test.labels.tolist() == [i % 10 for i in range(30)]


WHOLE = idx(np.zeros((60, 28, 28)))
DAMAGES = {
    "not gzip": (IMAGES, WHOLE, "not a readable gzip file: BadGzipFile"),
    "cut gzip": (IMAGES, gzip.compress(WHOLE)[:-12], "not a readable gzip file: EOFError"),
    "bad gzip": (IMAGES, gzip.compress(WHOLE)[:40] + bytes(40), "not a readable gzip file"),
    "empty": (IMAGES, gzip.compress(b""), "begins with nothing; accepted: 00000803"),
    "labels as images": (IMAGES, gzip.compress(idx(np.zeros(60))), "begins with 00000801; accepted: 00000803"),
    "short": (IMAGES, gzip.compress(WHOLE[:-1]), "47039 bytes of data; accepted: 47040"),
    "long": (LABELS, gzip.compress(idx(np.zeros(60)) + b"x"), "more than 60 bytes of data; accepted: 60"),
    "small": (IMAGES, gzip.compress(idx(np.zeros((60, 14, 14)))), "images are 14x14; accepted: 28x28"),
    "a header that promises": (
        IMAGES,
        gzip.compress(WHOLE[:4] + b"\xff" * 4 + WHOLE[8:]),
        "4,294,967,295 samples; acc",
    ),
    "more than the header": (IMAGES, gzip.compress(WHOLE + bytes(10**6)), "more than 47040 bytes of data; accepted: 4"),
    "few labels": (LABELS, gzip.compress(idx(np.zeros(59))), "59 labels for 60 images"),
    "label 10": (LABELS, gzip.compress(idx(np.arange(60) % 11)), "holds the label 10; accepted: 0 to 9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    name, content, words = DAMAGES[damage]
    (write_fashion(tmp_path) / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        create_dataset("fashion_mnist", data_dir=tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_dir: needed"):
        create_dataset("fashion_mnist")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        create_dataset("fashion_mnist", data_dir=tmp_path / "nowhere")
    (write_fashion(tmp_path) / LABELS).unlink()
    with pytest.raises(UserError, match=f"--data_dir: no {LABELS} in {tmp_path}"):
        create_dataset("fashion_mnist", data_dir=tmp_path)


def test_a_class_too_small_to_divide(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class 5 has 1 training sample\(s\)"):
        create_dataset("fashion_mnist", data_dir=write_fashion(tmp_path, train=15), nb_smpls_val=12)
