"""The sensitivity table: how lowering one variable at a time changes the network. It is stored for other budgets."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import astuple, dataclass
from pathlib import Path

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.search.budget import Problem
from pocketprune.search.interface import Score

COLUMNS = ("layer", "channels", "kept", "error", "accuracy", "loss", "divergence")  # of the file
FULL = "(dense)"  # names the line of the full network
SAME_LOSS, SAME_ACCURACY = 1e-4, 2e-3  # another machine rounds differently; another network differs by more


@dataclass(frozen=True)
class Sensitivity:
    """One line of the table: a single variable lowered to a value, the error there, and the network's score."""

    variable: str
    full: int
    value: int
    error: float
    accuracy: float
    loss: float
    divergence: float


@dataclass(frozen=True)
class SensitivityTable:
    """The full network's score, and a few lines for every free variable."""

    full: Sensitivity
    lines: tuple[Sensitivity, ...]

    def save(self, path: str | Path) -> None:
        """Write a CSV file that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(
            [value if isinstance(value, str) else repr(value) for value in astuple(line)]
            for line in (self.full, *self.lines)
        )
        write_atomically(path, text.getvalue().encode())

    @classmethod
    def load(cls, path: str | Path) -> SensitivityTable:
        """Read what `save` wrote.

        Raises:
            UserError: the file is unreadable, or no such table.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                lines = [
                    Sensitivity(
                        row[COLUMNS[0]],
                        *(int(row[name]) for name in COLUMNS[1:3]),
                        *(float(row[name]) for name in COLUMNS[3:]),
                    )
                    for row in csv.DictReader(file)
                ]
        except OSError as error:
            raise UserError(f"sensitivity table {path}: cannot be read ({error.strerror})") from None
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"sensitivity table {path}: not a table that a search wrote ({error})") from None
        if len(lines) < 2 or lines[0].variable != FULL:
            raise UserError(
                f"sensitivity table {path}: expected a line for {FULL}, then one or more for every variable"
            )
        return cls(lines[0], tuple(lines[1:]))

    def check(self, problem: Problem, full: Score) -> None:
        """Raise a UserError unless the table was measured on this network. Its full score is `full`."""
        same_loss = math.isclose(full.loss, self.full.loss, rel_tol=SAME_LOSS, abs_tol=SAME_LOSS)
        if not (same_loss and abs(full.accuracy - self.full.accuracy) <= SAME_ACCURACY):
            raise UserError(
                f"sensitivity table: measured on another network or split (loss {self.full.loss:.6g}, "
                f"now {full.loss:.6g}); remove it to measure anew"
            )
        measured = {(line.variable, line.full) for line in self.lines}
        for variable in (problem.variables[index] for index in problem.free):
            if (variable.name, variable.full) not in measured:
                raise UserError(
                    f"sensitivity table: no line for {variable.name} of {variable.full}; remove it to measure anew"
                )
