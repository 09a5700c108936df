"""Several runs on one page: a table of their results, and how good they are against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.reporting.charts import SHAPES, Axis, Series, chart
from pocketprune.reporting.markup import document, escape, section, table
from pocketprune.reporting.records import Record, number, read_record
from pocketprune.reporting.run_page import title_of
from pocketprune.reporting.stage_section import shown

COSTS: dict[str, tuple[str, Callable[[float], float]]] = {
    "macs": ("MACs, millions", lambda macs: macs / 1e6),
    "latency_ms": ("latency, ms", float),
    "params": ("parameters, thousands", lambda params: params / 1e3),
}
"""What a result is drawn against: key -> (title of the axis, value as drawn)."""


def compare(runs: Sequence[str | Path], path: Path) -> str:
    """Write a page on several runs. Return their results as lines of a table for a terminal.

    Args:
        runs: folders of finished runs.
        path: the file to write.

    Raises:
        UserError: no runs, or a folder without a report.
    """
    if not runs:
        raise UserError("none given; folders of finished runs are accepted", argument="runs")
    records = [read_record(run) for run in runs]
    write_atomically(path, compare_page(records).encode())
    return "\n".join(_line(number, record) for number, record in enumerate(records, 1))


def compare_page(runs: Sequence[Record]) -> str:
    """Return the page as HTML. The runs are numbered in their order; marks in the charts carry these numbers."""
    metrics = list(dict.fromkeys(run.metric for run in runs if run.stages))
    charts = "".join(_against(runs, metric, key) for metric in metrics for key in COSTS)
    text = "A ring is the dense network, the mark with a number what it became in that run."
    parts = [
        section("Results", "Of each run: the dense network, then what it became.", _results(runs)),
        section("How good against how costly", text, f'<div class="charts">{charts}</div>' if charts else ""),
        section("Settings that differ", "", _settings(runs)),
    ]
    nets = ", ".join(dict.fromkeys(title_of(run) for run in runs))
    return document(f"{len(runs)} runs compared", f"{nets}, by PocketPrune", parts)


def _results(runs: Sequence[Record]) -> str:
    rows = []
    for place, run in enumerate(runs, 1):
        if not run.stages:
            rows.append([f"{place}  {escape(run.name)}", *[""] * 5])
            continue
        first, last = run.stages[0], run.stages[-1]
        name = f"<b>{place}</b>&ensp;{escape(run.name)}<br><small class='muted'>{escape(title_of(run))}</small>"
        cells = [name, escape(str(run.report.get("learner", "")))]
        cells += [_pair(key, first, last) for key in (run.metric, "macs", "params", "latency_ms")]
        rows.append(cells)
    head = ["run", "learner", "quality", "MACs", "parameters", "latency"]
    return table(head, rows)


def _pair(key: str, first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    before, after = number(first.get(key)), number(last.get(key))
    if after is None:
        return ""
    beside = "" if before is None else f"<small>dense {escape(shown(key, before))}</small>"
    return escape(shown(key, after)) + beside


def _against(runs: Sequence[Record], metric: str, key: str) -> str:
    """Return the runs that were measured by one metric against one cost."""
    title, drawn = COSTS[key]
    series = []
    for place, run in enumerate(runs):
        points = [(drawn(cost), quality) for stage in (run.stages[:1] + run.stages[-1:])
                  if (cost := number(stage.get(key))) is not None
                  and (quality := number(stage.get(metric))) is not None]  # fmt: skip
        if run.metric != metric or not points:
            continue
        told = [f"{run.name}: {shown(metric, quality)} at {cost:.4g} {title}" for cost, quality in points]
        look = SHAPES[place % 4]
        if len(points) > 1:
            series.append(Series("", points, place, pale=True))
            series.append(Series("dense", points[:1], place, "ring", 4.5, told[:1]))
        series.append(Series(f"{place + 1} {run.name}", points[-1:], place, look, 5.5, told[-1:], [str(place + 1)]))
    name = metric.replace("_", " ")
    return chart(f"{name} against {title.split(',')[0]}", series, Axis(title), Axis(name, metric == "accuracy"))


def _settings(runs: Sequence[Record]) -> str:
    """Return the settings that are not the same in all runs, a column for each run."""
    configs = [config if isinstance(config := run.report.get("config"), Mapping) else {} for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    differing = [name for name in names if len({str(config.get(name)) for config in configs}) > 1]
    rows = [[escape(name), *(escape(str(config.get(name, ""))) for config in configs)] for name in differing]
    return table(["", *(f"{place} {run.name}" for place, run in enumerate(runs, 1))], rows) if rows else ""


def _line(place: int, run: Record) -> str:
    """Return a run's result in one line."""
    if not run.stages:
        return f"{place} {run.name}: nothing measured"
    last = run.stages[-1]
    keys = (run.metric, "macs", "params", "latency_ms")
    values = [f"{key} {shown(key, value)}" for key in keys if (value := number(last.get(key))) is not None]
    return f"{place} {run.name}: {', '.join(values)}"
