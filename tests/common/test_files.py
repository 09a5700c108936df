"""Files of tensors from outside: what is in them may be anything."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.files import MAX_HEIGHT, read_json, read_tensors, refuse_cycles, write_atomically
from tests.common.hostile import deflate, inside_itself


def _refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_tensors(path, source="file")
    assert str(caught.value).startswith("file: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _nested(levels: int) -> list[Any]:
    content: list[Any] = []
    for _ in range(levels - 1):
        content = [content]
    return content


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    shared = {"x": torch.arange(3)}
    content = {"a": shared, "b": [shared, (shared, 1.5)], "c": OrderedDict(d=None)}
    torch.save(content, tmp_path / "file.pt")
    read = read_tensors(tmp_path / "file.pt")
    assert read["a"] is read["b"][0]
    assert torch.equal(read["b"][1][0]["x"], shared["x"])


@pytest.mark.parametrize("zipped", [True, False])
def test_content_that_contains_itself_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save(inside_itself(), tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    assert "holds a dict that contains itself" in _refusal(tmp_path / "file.pt")


def test_cycles_of_every_container_are_found() -> None:
    for content in ([], {}, OrderedDict()):
        within = (content,)
        content.append(within) if isinstance(content, list) else content.update(a=within)
        with pytest.raises(UserError, match="contains itself"):
            refuse_cycles({"state": content})


def test_levels_are_counted_through_what_is_shared() -> None:
    refuse_cycles(_nested(MAX_HEIGHT))
    chain = [[]]
    for _ in range(MAX_HEIGHT):
        chain.append([chain[-1]])
    for content in (_nested(MAX_HEIGHT + 1), chain, chain[::-1], _nested(100_000)):
        with pytest.raises(UserError, match="nested more than"):
            refuse_cycles(content)


def test_what_is_shared_is_walked_once() -> None:
    content: list[Any] = []
    for _ in range(MAX_HEIGHT - 1):
        content = [content, content]
    refuse_cycles(content)


def test_an_archive_may_not_grow(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "file.pt")
    assert read_tensors(tmp_path / "file.pt")["weight"].shape == (1_000_000,)
    deflate(tmp_path / "file.pt")
    assert "bytes would grow to 4,0" in _refusal(tmp_path / "file.pt")


def test_json_objects_are_read(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"a": [1, null]}')
    assert read_json(tmp_path / "file.json") == {"a": [1, None]}
    assert read_json(tmp_path / "none.json") == {}


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff", b"[" * 200_000, b'{"a":' * 200_000])
def test_other_json_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(UserError, match=r"file.json: not readable as JSON \(") as caught:
        read_json(tmp_path / "file.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_write_that_is_broken_off_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def failing(_handle: int) -> None:
        raise fault

    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises((KeyboardInterrupt, UserError)):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
