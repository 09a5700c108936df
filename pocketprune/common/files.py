"""Write files that no kill can break, and read files from outside that can do no harm."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pocketprune.common.errors import UserError

GROWTH = 4  # torch.save does not compress: a file that grows to more than this many times its size is a trap
MAX_HEIGHT = 100  # levels of dicts and lists within each other


def write_atomically(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` entirely or not at all.

    The data is written to a file beside `path` and synced; that file is then renamed to `path`.

    Raises:
        UserError: the disk is full, the folder is read-only, or the like. The old file at `path` is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C included
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a renaming in it is durable; do nothing on file systems that refuse."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_tensors(path: str | os.PathLike[str], *, source: str = "") -> Any:
    """Read what torch.save wrote, on the CPU. Checksums are verified, and no code in the file is executed.

    Args:
        path: the file.
        source: how the message of an error begins; the path if not given.

    Returns:
        The object that was saved.

    Raises:
        UserError: the file is missing, truncated, damaged, not torch.save's, holds code, would grow far beyond its
            size, or holds a dict or list that contains itself.
    """
    path, source = Path(path), source or str(path)
    if not path.is_file():
        raise UserError(f"{source}: no such file")
    try:
        content = _read(path)
        refuse_cycles(content)
        return content
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error})") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{source}: damaged or truncated ({error})") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)|unrecognized (?:function|class) ([\w.]+)", str(error))
        fault = (
            f"holds code ({code[1] or code[2]}), which is not executed; tensors and plain values are accepted"
            if code
            else "damaged, or not a file of tensors"
        )
        raise UserError(f"{source}: {fault}") from error
    except Exception as error:  # the parser raises whatever it met: storage, key or end-of-file errors
        raise UserError(f"{source}: damaged, or not a file of tensors ({type(error).__name__})") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file.

    Raises:
        UserError: the file is unreadable, damaged, nested beyond reason, or holds something else than an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not readable as JSON (a {type(content).__name__}, expected an object)")
    return content


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(path) as archive:  # torch itself does not verify the checksums it writes
            _refuse_growth(archive, path.stat().st_size)
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_growth(archive: zipfile.ZipFile, size: int) -> None:
    """Raise UserError where the members say that they would take far more bytes than the file has."""
    grown = sum(member.file_size for member in archive.infolist())
    if grown > GROWTH * size:
        raise UserError(f"its {size:,} bytes would grow to {grown:,}; at most {GROWTH} times its size is accepted")


def refuse_cycles(content: Any) -> None:
    """Raise UserError where a dict, list or tuple contains itself, or is nested too deep to be walked."""
    _height(content, set(), {})


def _height(value: Any, inside: set[int], known: dict[int, int]) -> int:
    """Return how many levels of containers lie within each other.

    Args:
        inside: the ids of the containers around the value.
        known: the heights of the containers met so far, by id: one that is shared is walked once.

    Raises:
        UserError: a container contains itself, or the levels are too many.
    """
    if not isinstance(value, (Mapping, list, tuple)):
        return 0
    if id(value) in inside:
        raise UserError(f"damaged: it holds a {type(value).__name__} that contains itself")
    if id(value) not in known:
        within = inside | {id(value)}
        if len(within) > MAX_HEIGHT:
            raise UserError(f"damaged: its dicts and lists are nested more than {MAX_HEIGHT} deep")
        items = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + max((_height(item, within, known) for item in items), default=0)
    if len(inside) + known[id(value)] > MAX_HEIGHT:
        raise UserError(f"damaged: its dicts and lists are nested more than {MAX_HEIGHT} deep")
    return known[id(value)]
