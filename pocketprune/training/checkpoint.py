"""Checkpoints that a kill at any moment cannot break: written beside their place, synced, then renamed into it.

A checkpoint holds tensors and Python primitives only, so that it loads with `weights_only=True`: no code runs on loading.
"""

import contextlib
import io
import os
import random
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketprune.errors import UserError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Put `data` at `path` entirely or not at all, whatever happens meanwhile.

    Raises:
        UserError: the disk is full, the folder is read-only, or the like. What was at `path` before is still there.
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
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable; some file systems refuse, and then it is as durable as they make it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def assert_plain(state: Any, where: str = "state") -> None:
    """Raise TypeError, naming the place, unless `state` is built of tensors and primitives alone."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            assert_plain(value, f"{where}[{key!r}]")
    elif isinstance(state, list | tuple):
        for position, value in enumerate(state):
            assert_plain(value, f"{where}[{position}]")
    elif type(state) not in (bool, int, float, str, bytes, type(None), torch.Tensor, torch.nn.Parameter):
        raise TypeError(f"{where} is a {type(state).__name__}: a checkpoint holds tensors and primitives only")


@dataclass(frozen=True)
class Checkpoint:
    """What `Checkpoints.latest` found: the state saved after `step` steps, and where it lies."""

    step: int
    state: dict[str, Any]
    path: Path


class Checkpoints:
    """The last `keep` checkpoints of one phase of a run: `directory/<name>-<step>.pt`.

    Every phase (training, pruning, fine-tuning) has its own `name`; so the phases of a run share a directory, and rerunning
    the command walks through the finished ones by their last checkpoints.
    """

    def __init__(self, directory: str | Path, *, name: str = "train", keep: int = 3) -> None:
        if keep < 1:
            raise UserError(f"keep_checkpoints={keep}: keep at least 1")
        self.directory, self.name, self.keep = Path(directory), name, keep
        self._pattern = re.compile(rf"{re.escape(name)}-(\d+)\.pt")

    def path(self, step: int) -> Path:
        return self.directory / f"{self.name}-{step:08d}.pt"

    def steps(self) -> list[int]:
        """Steps of the checkpoints present, in rising order; they may still turn out to be damaged."""
        if not self.directory.is_dir():
            return []
        matches = (self._pattern.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Write `state` (tensors and primitives, nested) as the checkpoint after `step` steps; drop the oldest beyond `keep`.

        Raises:
            UserError: it cannot be written; the earlier checkpoints are untouched, and the message names the last of them.
            TypeError: `state` holds something that would not load without executing code.
        """
        assert_plain(state)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            write_atomically(self.path(step), buffer.getvalue())
        except UserError as error:
            steps = self.steps()
            kept = f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no earlier checkpoint"
            raise UserError(f"{error}; {kept}") from error
        for old in [s for s in self.steps() if s != step][: -(self.keep - 1) or None]:
            self.path(old).unlink(missing_ok=True)
        return self.path(step)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, on the CPU; None where there is none at all. Damaged ones are warned about.

        Raises:
            UserError: there are checkpoints and none of them can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return Checkpoint(step, load_plain(self.path(step)), self.path(step))
            except UserError as error:
                warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=2)
        if steps:
            raise UserError(f"{self.directory}: none of the {len(steps)} checkpoints {self.name}-*.pt can be read; "
                            "remove them to start over")
        return None


def load_plain(path: str | Path) -> dict[str, Any]:
    """Read a file of tensors and primitives, onto the CPU, without executing code from it, checking its checksums.

    Raises:
        UserError: it is missing, damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"{path}: damaged (checksum of {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch.load raises whatever its parser met: zip, pickle, storage or key errors
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state


def compare_configs(saved: Mapping[str, Any], now: Mapping[str, Any], *, ignore: tuple[str, ...] = ()) -> list[str]:
    """What differs between two configurations, one line a flag: `--batch_size: 128 saved, 64 now`. Empty when nothing does.

    Values are compared as they read back from JSON or a checkpoint: a tuple equals a list of the same values.
    """
    missing = "(absent)"
    names = sorted((saved.keys() | now.keys()) - set(ignore))
    pairs = ((name, saved.get(name, missing), now.get(name, missing)) for name in names)
    return [f"--{name}: {old} saved, {new} now" for name, old, new in pairs if _plain(old) != _plain(new)]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def random_states() -> dict[str, Any]:
    """The states of every global generator (Python, NumPy, torch on the CPU and on the current GPU), as primitives and tensors."""
    version, internal, gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(algorithm), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put every global generator back where `random_states` found it."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_everything(seed: int) -> None:
    """Seed every global generator; torch's own call reaches the GPUs too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
