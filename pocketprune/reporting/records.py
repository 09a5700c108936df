"""A finished run as its folder holds it: the report, the roll-outs of its search, its curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_json
from pocketprune.reporting.curves import read_curves
from pocketprune.reporting.scales import Point


@dataclass(frozen=True)
class Record:
    """What is known of a run. Parts that its learner does not have are empty.

    Attributes:
        name: of its folder.
        report: report.json.
        rollouts: the lines of search.csv.
        search: search.json: what was asked of the search, and its finalists.
        curves: what was recorded while it ran: tag -> (step, value).
    """

    name: str
    report: Mapping[str, Any]
    rollouts: Sequence[Mapping[str, str]] = ()
    search: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """The networks measured, the dense one first, the result last: name and measured values."""
        found = self.report.get("stages")
        return [stage for stage in found if isinstance(stage, Mapping)] if isinstance(found, list) else []

    @property
    def metric(self) -> str:
        """The key of the value that tells how good a network is."""
        return str(self.report.get("metric") or "accuracy")


def read_record(run: str | Path) -> Record:
    """Return what the folder of a run holds.

    Args:
        run: the folder, or its report.json.

    Raises:
        UserError: there is no report, or it cannot be read.
    """
    folder = Path(run).parent if Path(run).name == "report.json" else Path(run)
    path = folder / "report.json"
    if not path.is_file():
        raise UserError(f"{run}: no folder of a finished run, which holds a report.json")
    return Record(
        folder.resolve().name,
        read_json(path),
        _rollouts(folder / "search.csv"),
        read_json(folder / "search.json"),
        read_curves(folder / "tensorboard"),
    )


def _rollouts(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(value: Any) -> float | None:
    """Return a finite number, also from text; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
