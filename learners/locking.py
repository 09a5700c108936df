"""One run at a time in a workdir: two would write over each other's checkpoints."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config import Config
from pocketprune.common.errors import UserError
from pocketprune.training.distributed import is_main

NAME = ".running"
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def sole_run(config: Config) -> Iterator[None]:
    """Let no other run train in the workdir, inside. Several processes of one run share it.

    The system frees the lock with the process that holds it, however that ends. A file system without locks has none.

    Raises:
        UserError: another run works there; its process and machine are told.
    """
    if config.run.exec_mode != "train" or not is_main():
        yield
        return
    path = config.workdir / NAME
    handle = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path) -> int:
    """Return the handle of the locked file, in which this process and its machine are named."""
    while True:
        handle = _open(path)
        try:
            # Not flock, which the worker processes of a killed run would go on holding.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
                os.close(handle)
                raise UserError(
                    f"--workdir={path.parent}: a run works there already ({holder}); wait for its end, or give another "
                    "--workdir"
                ) from None
        if _is_at(handle, path):
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return handle
        os.close(handle)  # its last holder has just removed it


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"--workdir={path.parent}: {path.name} cannot be written ({error.strerror})") from None


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
