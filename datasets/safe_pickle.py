"""Unpickling without running what a file asks for: it gives byte arrays and plain containers only.

No constructor of numpy's is called, because one of them takes raw bytes for pointers if the file says that they are
objects.
"""

import io
import math
import pickle
import pickletools
from typing import IO, Any, Literal

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

BYTE_TYPES = ("u1", "|u1", "uint8")
LARGEST_FILE = 2**26  # bytes; twice an official CIFAR-10 batch


def load_plain_pickle(file: IO[bytes], name: str, largest: int = LARGEST_FILE) -> Any:
    """Return the content of a pickle: uint8 arrays, dicts, lists, bytes, strings and numbers.

    Strings of Python 2 are returned as bytes. The content may be an array, or a dict with arrays among its values.

    Args:
        file: the pickle.
        name: its name in messages.
        largest: largest accepted size of the file, in bytes.

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
    """Refuse an index in the unpickler's memo that would make it allocate more items than there are bytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError(f"memo entry {argument} is not accepted")


class _Bytes:
    """The stand-in for a numpy dtype. Bytes are the only type of numbers that arrays may have."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which a byte does not have."""


class _Array:
    """The stand-in for numpy's array, as a pickle describes it."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Bytes, bool, bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: bytes, dtype: _Bytes, shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
        """Make the array of raw bytes, or raise UnpicklingError if their number differs from the shape's."""
        if not isinstance(dtype, _Bytes) or not isinstance(raw, bytes | bytearray):
            raise pickle.UnpicklingError("an array without bytes of data is not accepted")
        if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) != len(raw):
            raise pickle.UnpicklingError(f"an array of {len(raw)} bytes for shape {shape} is not accepted")
        self.array = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order=order).copy()


def _unwrapped(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that gives a pickle its own methods for the few names by which arrays are described.

    They are methods because a pickle may set attributes of what it gets, and those of methods cannot be set.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name, or raise UnpicklingError."""
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
        """Begin an array as protocols 0 to 4 do. Its state follows."""
        return _Array()

    def _frombuffer(self, raw: bytes, dtype: _Bytes, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Array:
        """Return an array as protocol 5 describes it."""
        array = _Array()
        array.fill(raw, dtype, shape, order)
        return array

    def _encode(self, text: str, encoding: str) -> bytes:
        """Return bytes as protocol 2 describes them. The other codecs of `_codecs.encode` are refused."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"codec {encoding!r} is not accepted")
        return text.encode("latin1")
