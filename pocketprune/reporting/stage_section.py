"""The networks that a run measured, on its page: large figures for the result, and all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketprune.reporting.markup import escape, section, table, tile
from pocketprune.reporting.records import Record, number
from pocketprune.reporting.stages import COLUMNS, HIDDEN, Column
from pocketprune.reporting.tables import count

COSTS = {"macs": "MACs", "params": "parameters"}


def tiles(run: Record) -> str:
    """Return the result in a few large figures, each against the first network."""
    if not run.stages:
        return ""
    first, last = run.stages[0], run.stages[-1]
    parts = [_quality(run, first, last)]
    for key, title in COSTS.items():
        dense, value = number(first.get(key)), number(last.get(key))
        if dense and value is not None:
            parts.append(tile(title, f"{value / dense:.1%}", f"{count(value)} of {count(dense)}"))
    dense, value = number(first.get("latency_ms")), number(last.get("latency_ms"))
    if dense and value:
        parts.append(tile("latency", f"{value:.2f} ms", f"dense {dense:.2f} ms, {dense / value:.2f}x as fast"))
    return f'<div class="tiles">{"".join(parts)}</div>'


def _quality(run: Record, first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    dense, value = number(first.get(run.metric)), number(last.get(run.metric))
    if value is None or dense is None:
        return ""
    name = run.metric.replace("_", " ")
    return tile(name, shown(run.metric, value), f"{shown(run.metric, dense)} dense, {_difference(run, value - dense)}")


def _difference(run: Record, change: float) -> str:
    return f"{change * 100:+.2f} points" if run.metric == "accuracy" else f"{change:+.4g}"


def stage_section(run: Record) -> str:
    """Return the table of the networks, a column each, a row for whatever was measured."""
    if not run.stages:
        return ""
    measured = list(dict.fromkeys(key for stage in run.stages for key in stage if key not in (*HIDDEN, "name")))
    names = [*(key for key in COLUMNS if key in measured), *(key for key in measured if key not in COLUMNS)]
    config = run.report.get("config")
    batch = config.get("latency_batch", "?") if isinstance(config, Mapping) else "?"
    rows = []
    for key in names:
        column = COLUMNS.get(key) or Column(key.replace("_", " "), plain)
        first = next(value for stage in run.stages if (value := stage.get(key)) is not None or stage is run.stages[-1])
        cells = [_cell(column, number(stage.get(key)), number(first)) for stage in run.stages]
        rows.append([escape(column.title.format(latency_batch=batch)), *cells])
    head = ["", *(str(stage.get("name", "")) for stage in run.stages)]
    measured_on = str(run.report.get("measured_on") or "the test set")
    return section(
        "The networks", f"Measured on {measured_on}; shares are of the first one.", table(head, rows, last=True)
    )


def _cell(column: Column, value: float | None, first: float | None) -> str:
    if value is None:
        return ""
    share = f"<small>{escape(column.share(value, first))}</small>" if column.share and first and value else ""
    return escape(column.text(value)) + share


def shown(key: str, value: float) -> str:
    """Return a measured value as the tables show it."""
    return COLUMNS[key].text(value) if key in COLUMNS else plain(value)


def plain(value: float) -> str:
    """Return a value of an unknown kind."""
    return f"{value:.4g}"
