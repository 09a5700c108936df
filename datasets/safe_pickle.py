"""Unpickling without running what a file asks for: only arrays and plain containers come out."""

import codecs
import pickle
from typing import Any, BinaryIO

import numpy as np

from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes; the other codecs of `_codecs.encode` stay out of reach."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not accepted")
    return codecs.encode(text, "latin1")


def _array(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """How protocol 5 spells arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_reconstruct = np.ndarray(0).__reduce__()[0]

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _encode,
}


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not accepted")
        return _ALLOWED[module, name]


def load_plain_pickle(file: BinaryIO, name: str) -> Any:
    """The numpy arrays, dicts, lists, bytes, strings and numbers in a pickle; Python 2 strings come as bytes.

    Raises UserError naming the file for a damaged one and for one that asks for anything else.
    """
    try:
        return _AllowListUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{name}: not a readable data file: {one_line(error)}") from error
