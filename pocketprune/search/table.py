"""The sensitivity table: what cutting one layer at a time does to the whole network, kept as a CSV for other
budgets."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.search.budget import Problem

DENSE = "(dense)"
SAME_LOSS, SAME_ACCURACY = 1e-4, 2e-3  # another machine rounds differently; another network differs by more


@dataclass(frozen=True)
class Sensitivity:
    """One line of the table: a single layer cut to `kept` channels, its error, and the whole network's
    score."""

    layer: str
    channels: int
    kept: int
    error: float
    accuracy: float
    loss: float
    divergence: float


@dataclass(frozen=True)
class SensitivityTable:
    """The dense network's score and the lines of every free layer."""

    dense: Sensitivity
    lines: tuple[Sensitivity, ...]

    def save(self, path: str | Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([field.name for field in fields(Sensitivity)])
        writer.writerows(
            [value if isinstance(value, str) else repr(value) for value in astuple(line)]
            for line in (self.dense, *self.lines)
        )
        write_atomically(path, text.getvalue().encode())

    @classmethod
    def load(cls, path: str | Path) -> SensitivityTable:
        """Raises UserError for a file that is unreadable or not such a table."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                lines = [
                    Sensitivity(
                        row["layer"],
                        int(row["channels"]),
                        int(row["kept"]),
                        *(float(row[name]) for name in ("error", "accuracy", "loss", "divergence")),
                    )
                    for row in csv.DictReader(file)
                ]
        except OSError as error:
            raise UserError(f"sensitivity table {path}: cannot be read ({error.strerror})") from None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"sensitivity table {path}: not a table that a search wrote ({error})") from None
        if len(lines) < 2 or lines[0].layer != DENSE:
            raise UserError(f"sensitivity table {path}: expected a line for {DENSE}, then one or more for every layer")
        return cls(lines[0], tuple(lines[1:]))

    def check(self, problem: Problem, *, dense_loss: float, dense_accuracy: float) -> None:
        """Raises UserError unless the table was measured on this network and held-out split."""
        same_loss = math.isclose(dense_loss, self.dense.loss, rel_tol=SAME_LOSS, abs_tol=SAME_LOSS)
        if not (same_loss and abs(dense_accuracy - self.dense.accuracy) <= SAME_ACCURACY):
            raise UserError(
                f"sensitivity table: measured on another network or split (dense loss {self.dense.loss:.6g}, "
                f"now {dense_loss:.6g}); remove it to measure anew"
            )
        measured = {(line.layer, line.channels) for line in self.lines}
        for layer in (problem.layers[index] for index in problem.free):
            if (layer.name, layer.channels) not in measured:
                raise UserError(
                    f"sensitivity table: no line for {layer.name} with {layer.channels} channels; "
                    "remove it to measure anew"
                )
