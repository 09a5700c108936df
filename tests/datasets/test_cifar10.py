"""CIFAR-10 files: every accepted place, and every kind of damage."""

import gzip
import hashlib
import importlib
import io
import pickle
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import Dataset, create_dataset
from pocketprune.common.errors import UserError
from tests.datasets.files import CIFAR_FILES, cifar_batch, write_cifar, write_cifar_archive

module = importlib.import_module("datasets.cifar10")  # the package's attribute of this name is the builder


def _load(data_dir: Path, **options: object) -> Dataset:
    return create_dataset("cifar10", data_dir=data_dir, **options)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_folder_in_any_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    folder = write_cifar(tmp_path, protocol=protocol)
    for data_dir in (tmp_path, folder):
        cifar = _load(data_dir)
        assert (len(cifar.train), len(cifar.val), len(cifar.test)) == (180, 20, 40)
        assert (cifar.num_classes, cifar.input_shape) == (10, (3, 32, 32))
        expected = cifar_batch(40, 5)[b"data"].reshape(-1, 3, 32, 32)
        assert np.array_equal(cifar.test.images.numpy(), expected)
        assert cifar.val.labels.bincount().tolist() == [2] * 10


def test_the_archive_beside_or_as_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_cifar(tmp_path / "b")
    archive = write_cifar_archive(tmp_path / "a")
    folder = _load(tmp_path / "b")
    for data_dir in (tmp_path / "a", archive):
        assert torch.equal(_load(data_dir).train.images, folder.train.images)
    assert not (tmp_path / "a" / "cifar-10-batches-py").exists()


def _damage(edit: Callable[[dict[bytes, object]], object]) -> bytes:
    batch = cifar_batch(40, 0)
    edit(batch)
    return pickle.dumps(batch)


DAMAGES = {
    "truncated": (pickle.dumps(cifar_batch(40, 0))[:5000], "not a readable data file"),
    "empty": (b"", "not a readable data file: ValueError: pickle exhausted"),
    "noise": (bytes(range(256)) * 9, "not a readable data file"),
    "a list": (pickle.dumps([1]), "holds a list"),
    "no data": (_damage(lambda b: b.pop(b"data")), "'data' is NoneType"),
    "floats": (_damage(lambda b: b.update({b"data": np.zeros((40, 3072))})), "array of 'f8' is not accepted"),
    "narrow": (_damage(lambda b: b.update({b"data": np.zeros((40, 99), np.uint8)})), r"uint8 \(40, 99\)"),
    "few labels": (_damage(lambda b: b[b"labels"].pop()), "one label for each of the 40"),
    "label 10": (_damage(lambda b: b[b"labels"].append(b[b"labels"].pop() + 1)), "whole numbers 0 to 9"),
    "label text": (_damage(lambda b: b.update({b"labels": ["1"] * 40})), "whole numbers 0 to 9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    content, words = DAMAGES[damage]
    path = write_cifar(tmp_path) / "data_batch_3"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        _load(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_dir: needed"):
        create_dataset("cifar10")
    with pytest.raises(UserError, match=f"--data_dir={tmp_path}: no cifar-10-batches-py and no"):
        _load(tmp_path)
    (write_cifar(tmp_path) / "data_batch_2").unlink()
    with pytest.raises(UserError, match="data_batch_2: cannot be read: No such file"):
        _load(tmp_path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = write_cifar_archive(tmp_path, CIFAR_FILES[:4])
    with pytest.raises(UserError, match="holds no cifar-10-batches-py/data_batch_5"):
        _load(tmp_path)
    path.write_bytes(write_cifar_archive(tmp_path).read_bytes()[:9000])
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: not a readable .tar.gz archive"):
        _load(tmp_path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"not a readable .tar.gz archive"):
        _load(path)


def test_an_archive_may_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(bytes(3_000_000)))
    monkeypatch.setattr(module, "LARGEST_ARCHIVE", 1_000_000)
    with pytest.raises(UserError, match=f"{path}: grows to more than 1,000,000 bytes"):
        _load(tmp_path)


def test_a_member_may_not_grow(tmp_path: Path) -> None:
    """A sparse member takes no room in the archive, however large it says that it is."""
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    content = b"1\n0\n0\n".ljust(512, b"\0")
    member.size = len(content)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match="data_batch_1: larger than a data file; at most 67,108,864 bytes"):
        _load(tmp_path)


class _Response(io.BytesIO):
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content))}


def test_download_is_on_request_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    content = write_cifar_archive(tmp_path / "source").read_bytes()
    asked: list[str] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, **_: asked.append(url) or _Response(content))
    target = tmp_path / "data"
    with pytest.raises(UserError, match="--download"):
        _load(target)
    assert asked == []

    with pytest.raises(UserError, match=f"its MD5 sum is .*; expected: {module.MD5}"):
        _load(target, download=True)
    assert list(target.iterdir()) == []

    monkeypatch.setattr(module, "MD5", hashlib.md5(content).hexdigest())
    assert len(_load(target, download=True).test) == 40
    assert len(_load(target, download=True).test) == 40
    assert asked == [module.URL] * 2
    assert [path.name for path in target.iterdir()] == ["cifar-10-python.tar.gz"]


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **_: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match=r"^--download: cannot fetch .* OSError: no route to host$"):
        _load(tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []
