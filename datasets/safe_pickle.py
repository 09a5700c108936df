"""Unpickling without running what a file asks for: only byte arrays and plain containers come out.

No constructor of numpy's is called: one of them takes raw bytes for pointers where the file says that they are objects.
"""

import io
import math
import pickle
import pickletools
from typing import Any, BinaryIO

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

BYTE_TYPES = ("u1", "|u1", "uint8")
LARGEST_FILE = 2**26  # bytes; twice an official CIFAR-10 batch


def load_plain_pickle(file: BinaryIO, name: str, largest: int = LARGEST_FILE) -> Any:
    """Return what is in a pickle: uint8 arrays, dicts, lists, bytes, strings and numbers.

    Strings of Python 2 come as bytes. Arrays come where the pickle is one, or a dict with arrays among its values.

    Args:
        name: of the file, for messages.
        largest: bytes that the file may have.

    Raises:
        UserError: the file is damaged, too large, or asks for anything else.
    """
    content = file.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{name}: larger than a data file; at most {largest:,} bytes are accepted")
    try:
        _check_memo(content)
        loaded = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{name}: not a readable data file: {one_line(error)}") from error
    if isinstance(loaded, dict):
        return {key: _unwrapped(value) for key, value in loaded.items()}
    return _unwrapped(loaded)


def _check_memo(content: bytes) -> None:
    """Refuse a number in the unpickler's memo that would have it make room for more items than there are bytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and argument > len(content):
            raise pickle.UnpicklingError(f"memo entry {argument} is not accepted")


class _Bytes:
    """The only type of numbers that arrays may have, in the place of a numpy dtype."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment are nothing to a byte."""


class _Array:
    """An array as a pickle describes it, in the place of numpy's own."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Bytes, bool, bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: bytes, dtype: _Bytes, shape: tuple[int, ...], order: str) -> None:
        """Make the array of raw bytes, or raise UnpicklingError where they are not as many as the shape says."""
        if not isinstance(dtype, _Bytes) or not isinstance(raw, bytes | bytearray):
            raise pickle.UnpicklingError("an array without bytes of data is not accepted")
        if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) != len(raw):
            raise pickle.UnpicklingError(f"an array of {len(raw)} bytes for shape {shape} is not accepted")
        self.array = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order=order).copy()


def _unwrapped(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


class _PlainUnpickler(pickle.Unpickler):
    """Gives a pickle methods of its own for the few names that arrays are spelt with.

    Methods, because a pickle may set attributes on what it is given, and theirs cannot be set.
    """

    def find_class(self, module: str, name: str) -> Any:
        accepted = {
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): self._dtype,
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
            ("numpy._core.numeric", "_frombuffer"): self._frombuffer,
            ("_codecs", "encode"): self._encode,
        }
        if (module, name) not in accepted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not accepted")
        return accepted[module, name]

    def _dtype(self, name: str | bytes, *_flags: object) -> _Bytes:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if text not in BYTE_TYPES:
            raise pickle.UnpicklingError(f"an array of {text!r} is not accepted; uint8 is")
        return _Bytes()

    def _reconstruct(self, _kind: object, _shape: object, _type: object) -> _Array:
        """Begin an array as protocols 0 to 4 do; its state follows."""
        return _Array()

    def _frombuffer(self, raw: bytes, dtype: _Bytes, shape: tuple[int, ...], order: str) -> _Array:
        """Make an array as protocol 5 spells it."""
        array = _Array()
        array.fill(raw, dtype, shape, order)
        return array

    def _encode(self, text: str, encoding: str) -> bytes:
        """Make bytes as protocol 2 spells them; the other codecs of `_codecs.encode` stay out of reach."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"codec {encoding!r} is not accepted")
        return text.encode("latin1")
