"""Checkpoints that no kill can break: they are written to a temporary file, synced and then renamed.

A checkpoint holds tensors and Python primitives only. It therefore loads with `weights_only=True`, which runs no code
from the file.
"""

import io
import random
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_tensors, refuse_cycles, write_atomically
from pocketprune.common.kinds import odd_storage
from pocketprune.common.registry import one_line

PLAIN_TYPES = (bool, int, float, str, bytes, type(None), torch.Tensor, torch.nn.Parameter)


def assert_plain(state: Any, where: str = "state") -> None:
    """Raise TypeError unless `state` is built of tensors and primitives alone. The message names the place."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            assert_plain(key, f"the key {key!r} of {where}")
            assert_plain(value, f"{where}[{key!r}]")
    elif type(state) in (list, tuple):
        for position, value in enumerate(state):
            assert_plain(value, f"{where}[{position}]")
    elif type(state) not in PLAIN_TYPES:
        kind = type(state).__name__
        raise TypeError(f"{where} is a {kind}: a checkpoint holds tensors and primitives only")
    elif isinstance(state, torch.Tensor) and odd_storage(state):
        raise TypeError(f"{where} is a {odd_storage(state)} tensor: a checkpoint holds dense ones only")


@dataclass(frozen=True)
class Checkpoint:
    """What `Checkpoints.latest` found: the state that was saved after `step` steps, and its file."""

    step: int
    state: dict[str, Any]
    path: Path

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Turn whatever goes wrong inside, where the state is taken over, into one line.

        Raises:
            UserError: the state is not what this phase saves.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # what another program wrote can fail anywhere
            raise UserError(f"{self.path}: damaged ({one_line(error)})") from error


class Checkpoints:
    """The last `keep` checkpoints of one phase of a run: `directory/<name>-<step>.pt`.

    Every phase (training, pruning, fine-tuning) has its own `name`, because the phases of a run share a directory. A
    command that is run again skips a finished phase by loading its last checkpoint.
    """

    def __init__(self, directory: str | Path, *, name: str = "train", keep: int = 3) -> None:
        if keep < 1:
            raise UserError(f"{keep} given; it must be at least 1", argument="keep")
        self.directory, self.name, self.keep = Path(directory), name, keep
        self._pattern = re.compile(rf"{re.escape(name)}-(\d+)\.pt")

    def path(self, step: int) -> Path:
        """Return the file of the state after `step` steps."""
        return self.directory / f"{self.name}-{step:08d}.pt"

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints present, in rising order. Their files may be damaged."""
        if not self.directory.is_dir():
            return []
        matches = (self._pattern.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def newest(self) -> str:
        """Return a clause for an error message that names the last good checkpoint."""
        steps = self.steps()
        if not steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.path(steps[-1])}"

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Write `state` (nested tensors and primitives) as the one after `step` steps. Remove all but the last `keep`.

        Raises:
            UserError: it cannot be written. The earlier checkpoints are untouched, and the message names the last one.
            TypeError: `state` holds something that would not load without executing code.
        """
        refuse_cycles(state)
        assert_plain(state)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            write_atomically(self.path(step), buffer.getbuffer())
        except UserError as error:
            raise UserError(f"{error}; {self.newest()}") from error
        present = self.steps()
        for other in set(present) - set([s for s in present if s <= step][-self.keep :]):
            self.path(other).unlink(missing_ok=True)
        for unfinished in self.directory.glob(f".{self.name}-*.pt.tmp"):  # left by a kill
            unfinished.unlink(missing_ok=True)
        return self.path(step)

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, on the CPU; None where there is none at all.

        A damaged checkpoint causes a warning, and the one before it is tried.

        Raises:
            UserError: there are checkpoints, and none of them can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except UserError as error:
                warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
        if steps:
            raise UserError(
                f"{self.directory}: none of the {len(steps)} checkpoints {self.name}-*.pt can be "
                "read; remove them to start over"
            )
        return None

    def _read(self, step: int) -> Checkpoint:
        state = read_tensors(self.path(step))
        if not isinstance(state, dict):
            raise UserError(f"{self.path(step)}: holds a {type(state).__name__} and not a checkpoint")
        try:
            assert_plain(state)
        except TypeError as error:
            raise UserError(f"{self.path(step)}: {error}") from error
        return Checkpoint(step, state, self.path(step))


def compare_configs(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, ignore: tuple[str, ...] = (), prefix: str = ""
) -> list[str]:
    """List what differs between two configurations, one line a name: `batch_size: 128 saved, 64 now`.

    Values are compared as they read back from JSON or a checkpoint: a tuple equals a list of the same values,
    a path its text.

    Args:
        saved: name -> value, as a file held it.
        now: name -> value.
        ignore: names that may differ.
        prefix: what stands before each name, such as the dashes of a flag.

    Returns:
        The lines, by name. Empty when nothing differs.
    """
    names = sorted((saved.keys() | now.keys()) - set(ignore))
    pairs = ((name, saved.get(name, "(absent)"), now.get(name, "(absent)")) for name in names)
    return [f"{prefix}{name}: {old} saved, {new} now" for name, old, new in pairs if _plain(old) != _plain(new)]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators (the GPU's if in use), as plain values."""
    version, internal, gauss = random.getstate()
    of_numpy = np.random.get_state(legacy=True)
    assert isinstance(of_numpy, tuple)  # as the legacy generator's state is; NumPy's types also allow a dict
    algorithm, keys, position, has_gauss, cached = of_numpy
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(algorithm), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set every global generator to the state that `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, *rest = states["numpy"]
    np.random.set_state((algorithm, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_everything(seed: int) -> None:
    """Seed every global generator. torch's own call reaches the GPUs too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
