"""Turn milliseconds measured on this machine at a few widths into a cost for every width.

A kernel's time is no smooth function of its widths, and repeated measurements differ. A budget needs a cost that never
falls when a width rises. So the measured grid is made monotone and interpolated bilinearly.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_json, write_atomically

GRID = 5
"""The number of widths measured along each axis."""


class LatencyTable:
    """Keep milliseconds by name in a JSON file, apart for each machine and device, and measure those that are missing.

    Args:
        path: the file; None keeps the table in memory alone.
        device: what the times are measured on, as torch names it.

    Attributes:
        known: name -> milliseconds, on this machine and device.

    Raises:
        UserError: the file is no such table.
    """

    def __init__(self, path: Path | None, *, device: str = "cpu") -> None:
        self.path = path
        self.machine = f"{platform.node()}, {platform.processor() or platform.machine()}, {device}, " + (
            f"{torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        self._all = _read(path) if path is not None and path.exists() else {}
        self.known = self._all.setdefault(self.machine, {})

    def milliseconds(self, name: str, measure: Callable[[], float]) -> float:
        """Return the stored time of `name`; where there is none, call `measure` once and store the result."""
        if name not in self.known:
            self.known[name] = float(measure())
            if self.path is not None:
                self.write(self.path)
        return self.known[name]

    def write(self, path: Path) -> None:
        """Write the table, with what it has read of other machines."""
        write_atomically(path, json.dumps(self._all, indent=1).encode())


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Return machine -> name -> milliseconds."""
    try:
        return {machine: {name: float(ms) for name, ms in known.items()} for machine, known in read_json(path).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"latency table {path}: not a table that a search wrote ({error})") from None


class LayerLatency:
    """Give a layer's milliseconds at any input and output width: monotone in both, bilinear between measurements.

    Attributes:
        rows, columns: the input and output widths that were measured.

    Args:
        table: where measured times are looked up and stored.
        name: how the layer's names in the table begin.
        inputs: the layer's input width in the dense network.
        outputs: its output width there.
        measure: gives the layer's milliseconds at an input and an output width; it is called on a grid of at most
            GRID x GRID widths.
        sampled: whether a smaller input is gathered from the whole one, which takes time that the whole input does not
            cost. The width below the whole one is then measured too, and none is priced above the whole one.
    """

    def __init__(
        self,
        table: LatencyTable,
        name: str,
        inputs: int,
        outputs: int,
        measure: Callable[[int, int], float],
        *,
        sampled: bool = False,
    ) -> None:
        self.rows, self.columns = grid(inputs), grid(outputs)
        if sampled and inputs > 1:
            self.rows = sorted({*self.rows, inputs - 1})
        measured = [
            [table.milliseconds(f"{name} {a}->{b}", partial(measure, a, b)) for b in self.columns] for a in self.rows
        ]
        self.measured = np.asarray(measured, dtype=float)
        times = np.minimum(self.measured, self.measured[-1]) if sampled else self.measured
        rising = np.maximum.accumulate(times, axis=0)
        self.table = np.maximum.accumulate(rising, axis=1)

    def __call__(self, inputs: int, outputs: int) -> float:
        """Return the milliseconds at an input and an output width."""
        return self._between(self.table, inputs, outputs)

    def saves(self, inputs: int, outputs: int) -> bool:
        """Return whether so narrow an input is quicker than the whole one, as measured: a sampler may cost more."""
        return self._between(self.measured, inputs, outputs) < self._between(self.measured, self.rows[-1], outputs)

    def _between(self, table: np.ndarray, inputs: int, outputs: int) -> float:
        across = [float(np.interp(outputs, self.columns, row)) for row in table]
        return float(np.interp(inputs, self.rows, across))


def grid(width: int) -> Sequence[int]:
    """Return at most GRID widths from 1 to `width`, evenly spread."""
    return sorted({round(w) for w in np.linspace(1, width, min(GRID, width)).tolist()})
