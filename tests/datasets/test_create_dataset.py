"""Names, a user's own data sets, and the mistakes people make with both."""

from pathlib import Path

import pytest

from datasets import DATASETS, create_dataset
from pocketprune.common.errors import UserError

OWN = """
import numpy as np
from datasets import in_memory

def stripes(seed, device, data_dir="default"):
    images = np.zeros((60, 2, 5, 5), np.uint8)
    labels = np.arange(60) % 3
    own = in_memory("stripes", (images, labels), (images, labels), num_classes=3, mean=(0, 0), std=(1, 1),
                    seed=seed, device=device)
    assert data_dir in ("default", "here")
    return own

def nothing(**options):
    assert options["download"] is False
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_users_callable(own: Path) -> None:
    for data_dir in (None, "here"):
        dataset = create_dataset(f"{own}:stripes", data_dir=data_dir, download=True)
        assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (54, 6, 60)
        assert dataset.input_shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar", "did you mean cifar10?"),
        ("mnist", "did you mean fashion_mnist?"),
        ("qqqq", "accepted: digits, cifar10, fashion_mnist, image_folder, path/file.py:callable"),
        ("missing.py:data", "no such file: missing.py"),
        ("{own}:stripe", "did you mean stripes?"),
        ("{own}:nothing", "must return a datasets.Dataset, not NoneType"),
    ],
)
def test_unknown_names(own: Path, name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        create_dataset(name.format(own=own))
    message = str(caught.value)
    assert words in message
    assert message.startswith("--dataset=")
    assert "\n" not in message


def test_the_registry_is_what_is_documented() -> None:
    assert list(DATASETS) == ["digits", "cifar10", "fashion_mnist", "image_folder"]


def test_too_large_a_validation_split() -> None:
    with pytest.raises(UserError, match="--nb_smpls_val=1430: 1430 of 1437 training samples held out"):
        create_dataset("digits", nb_smpls_val=1430)
