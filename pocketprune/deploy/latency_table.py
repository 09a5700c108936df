"""Latency as a budget: milliseconds measured on this machine at a few widths, stored, and interpolated
between.

A kernel's time is no smooth function of its widths, and repeated measurements differ; a budget needs a cost
that never falls when a width rises. So the measured grid is made monotone and interpolated bilinearly.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically

GRID = 5  # measured widths per axis


class LatencyTable:
    """Milliseconds by name, kept in a JSON file per machine and device, measured where missing.

    Raises UserError for a file that is no such table.
    """

    def __init__(self, path: Path | None, *, device: str = "cpu") -> None:
        self.path = path
        self.machine = f"{platform.node()}, {platform.processor() or platform.machine()}, {device}, " + (
            f"{torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        self._all = self._read() if path is not None and path.exists() else {}
        self._known = self._all.setdefault(self.machine, {})

    def milliseconds(self, name: str, measure: Callable[[], float]) -> float:
        """The stored time of `name`; without one, `measure()` is called once and its result stored."""
        if name not in self._known:
            self._known[name] = float(measure())
            if self.path is not None:
                write_atomically(self.path, json.dumps(self._all, indent=1).encode())
        return self._known[name]

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            table = json.loads(self.path.read_text(encoding="utf-8"))
            return {machine: {name: float(ms) for name, ms in known.items()} for machine, known in table.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UserError(f"latency table {self.path}: not a table that a search wrote ({error})") from None


class LayerLatency:
    """A layer's milliseconds for any input and output width: monotone in both, bilinear between measurements.

    `measure(inputs, outputs)` gives the milliseconds of the layer at these widths; it is called on a grid of
    at most GRID x GRID, through `table` under names that begin with `name`.
    """

    def __init__(
        self, table: LatencyTable, name: str, inputs: int, outputs: int, measure: Callable[[int, int], float]
    ) -> None:
        self.rows, self.columns = grid(inputs), grid(outputs)
        measured = [
            [table.milliseconds(f"{name} {a}->{b}", lambda a=a, b=b: measure(a, b)) for b in self.columns]
            for a in self.rows
        ]
        rising = np.maximum.accumulate(np.asarray(measured, dtype=float), axis=0)
        self.table = np.maximum.accumulate(rising, axis=1)

    def __call__(self, inputs: int, outputs: int) -> float:
        across = [float(np.interp(outputs, self.columns, row)) for row in self.table]
        return float(np.interp(inputs, self.rows, across))


def grid(width: int) -> Sequence[int]:
    """At most GRID widths from 1 to `width`, evenly spread."""
    return sorted({round(w) for w in np.linspace(1, width, min(GRID, width)).tolist()})
