"""A data file can bring numbers and nothing else; above all, nothing that runs."""

import collections
import io
import os
import pickle
import subprocess
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from datasets import create_dataset
from datasets.safe_pickle import load_plain_pickle
from pocketprune.common.errors import UserError
from tests.datasets.files import write_cifar


class _Reduce:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def _load(content: bytes) -> object:
    return load_plain_pickle(io.BytesIO(content), "file")


class _Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 did, in bytes: the official files are that old."""

    def _save_string(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, str: _save_string, bytes: _save_string}


def test_files_of_python_2() -> None:
    file = io.BytesIO()
    data = np.arange(6, dtype=np.uint8).reshape(2, 3)
    _Python2Pickler(file, protocol=2).dump({"data": data, "labels": [1, 2]})
    loaded = _load(file.getvalue())
    assert loaded[b"labels"] == [1, 2]
    assert np.array_equal(loaded[b"data"], data)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_content_survives(protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    content = {"data": array, "turned": array.T, "list": [1, "é", b"\x00\xff", -(2**70)], "dict": {1: (2.5, None)}}
    loaded = _load(pickle.dumps(content, protocol=protocol))
    keys = {k.decode() if isinstance(k, bytes) else k: v for k, v in loaded.items()}
    assert np.array_equal(keys["data"], array)
    assert np.array_equal(keys["turned"], array.T)
    assert keys["list"][2:] == [b"\x00\xff", -(2**70)]
    assert keys["dict"] == {1: (2.5, None)}


def test_a_malicious_batch_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = write_cifar(tmp_path) / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": _Reduce(os.system, f"touch {marker}")}))
    with pytest.raises(UserError, match=r"data_batch_1: not a readable data file: .*asks for posix.system"):
        create_dataset("cifar10", data_dir=tmp_path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the same file does run where everything is allowed
    assert marker.exists()


@pytest.mark.parametrize(
    "item",
    [
        _Reduce(eval, "1"),
        _Reduce(getattr, "text", "upper"),
        _Reduce(subprocess.Popen, "true"),
        _Reduce(np.load, "x.npy"),
        _Reduce(__import__("_codecs").encode, "x", "rot13"),
        collections.OrderedDict(a=1),
        Path("x"),
        np.float64(1.5),
        np.ma.masked_array([1]),
    ],
    ids=["eval", "getattr", "Popen", "np.load", "codec", "OrderedDict", "Path", "scalar", "masked array"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_anything_else_is_refused(item: object, protocol: int) -> None:
    with pytest.raises(UserError, match=r"^file: not a readable data file: UnpicklingError: .*not accepted$"):
        _load(pickle.dumps([item], protocol=protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n__builtins__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__class__.mro\x93.",  # dotted names reach attributes
        b"Pid\n.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["function", "builtins", "dotted", "persistent id", "extension"],
)
def test_hand_written_pickles(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^file: not a readable data file: "):
        _load(content)


def _array(dtype: bytes, state: bytes, shape: bytes, raw: bytes) -> bytes:
    """An array spelt by hand, as protocol 2 does."""
    data = b"B" + len(raw).to_bytes(4, "little") + raw
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\n" + dtype + b"K\x00K\x01\x87R" + state + b"\x89" + data + b"tb."
    )


OBJECT_STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"


def test_an_array_spelt_by_hand() -> None:
    assert _load(_array(b"U\x02u1", b"", b"K\x03\x85", b"abc")).tolist() == [97, 98, 99]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_array(b"U\x02O8", b"", b"K\x01\x85", b"\x41" * 8), "array of 'O8'"),
        (_array(b"U\x01O", OBJECT_STATE, b"K\x01\x85", b"\x41" * 8), "array of 'O'"),
        (_array(b"U\x03V16", b"", b"K\x01\x85", b"\x41" * 16), "array of 'V16'"),
        (_array(b"U\x02u1", b"", b"K\x09\x85", b"abc"), "array of 3 bytes for shape"),
        (_array(b"U\x02u1", b"", b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86", b"abc"), "array of 3 bytes for shape"),
        (_array(b"U\x02u1", b"", b"U\x01x", b"abc"), "not a readable"),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "not a readable"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "not a readable"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x0c__defaults__K\x01s\x86b.", "not a readable"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo entry 2147483647 is not accepted"),
        (b"Np99999999999\n.", "memo entry 99999999999 is not accepted"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00x.", "not a readable"),
        (b"\x80\x04\x8e\x00\x00\x00\x00\x01\x00\x00\x00x.", "not a readable"),
    ],
    ids=[
        "objects", "objects with a state", "structures", "too few bytes", "negative sizes", "no shape",
        "ndarray called", "ndarray made", "attributes set", "memo", "memo in text", "bytearray", "bytes",
    ],
)  # fmt: skip
def test_hostile_arrays_and_sizes(content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _load(content)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array", [np.array([None, 1]), np.zeros(2, [("a", "u1")]), np.arange(3), np.array(["a"]), np.zeros(2, "M8[s]")]
)
def test_only_bytes_are_arrays(array: np.ndarray, protocol: int) -> None:
    with pytest.raises(UserError, match="not accepted"):
        _load(pickle.dumps({"data": array}, protocol=protocol))


def test_no_more_is_read_than_a_data_file_has() -> None:
    with pytest.raises(UserError, match=r"^file: larger than a data file; at most 100 bytes"):
        load_plain_pickle(io.BytesIO(bytes(1000)), "file", largest=100)


@pytest.mark.parametrize("keep", [0, 1, 10, 60, 200])
def test_truncated(keep: int) -> None:
    whole = pickle.dumps({"data": np.zeros((30, 30), np.uint8)}, protocol=2)
    with pytest.raises(UserError, match="not a readable data file"):
        _load(whole[:keep])
