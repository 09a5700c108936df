"""One run at a time in a workdir."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Config
from learners.locking import NAME, sole_run
from pocketprune.common.errors import UserError
from tests.command_line import refusal

HOLDER = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(handle, fcntl.LOCK_EX)
os.write(handle, b"process 7 on another\\n")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _config(workdir: Path, *flags: str) -> Config:
    return Config.from_flags([f"--workdir={workdir}", *flags])


def test_a_second_run_is_refused_and_told_of_the_first(
    tmp_path: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, f"--workdir={tmp_path}", "--device=cpu")
    assert line.startswith(f"--workdir={tmp_path}: a run works there already (process 7 on another); ")
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    with sole_run(_config(tmp_path, "--exec_mode=eval")):  # which writes nothing
        pass
    holder.kill()  # as kill -9 does
    holder.wait()
    with sole_run(_config(tmp_path)):
        assert (tmp_path / NAME).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert not list(tmp_path.iterdir())


def test_a_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the disk"), sole_run(_config(tmp_path)):
        raise UserError("the disk is full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [OSError(37, "No locks available"), OSError(95, "Operation not supported")])
def test_a_file_system_without_locks_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    def none(*_: object) -> None:
        raise fault

    monkeypatch.setattr("learners.locking.fcntl.lockf", none)
    with sole_run(_config(tmp_path)):
        pass
