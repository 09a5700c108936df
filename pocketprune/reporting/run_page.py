"""report.html: what a run did to a network, on one page that can be handed on."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketprune.common.files import write_atomically
from pocketprune.reporting.charts import Axis, Series, chart
from pocketprune.reporting.layer_rows import layer_section
from pocketprune.reporting.markup import (
    definitions,
    details,
    document,
    escape,
    notice,
    section,
    table,
)
from pocketprune.reporting.records import Record, number, read_record
from pocketprune.reporting.search_section import search_section
from pocketprune.reporting.stage_section import stage_section, tiles

PAGE = "report.html"
MOST_CURVES = 6  # in one chart
RATE = "learning_rate"


def write_page(folder: Path) -> None:
    """Write the page of the run in a folder, from what the folder holds. Raises UserError where there is no report."""
    write_atomically(folder / PAGE, run_page(read_record(folder)).encode())


def run_page(run: Record) -> str:
    """Return the page of a run as HTML."""
    report = run.report
    warnings = report.get("warnings")
    parts = [
        tiles(run),
        notice([str(line) for line in warnings] if isinstance(warnings, list) else []),
        stage_section(run),
        layer_section(run),
        search_section(run),
        curve_section(run),
        runtime_section(report),
        setting_section(report),
    ]
    return document(title_of(run), lead_of(report), parts)


def title_of(run: Record) -> str:
    """Return which network it is, on which data."""
    net, dataset = run.report.get("net"), run.report.get("dataset")
    return " on ".join(str(part) for part in (net, dataset) if part) or run.name


def lead_of(report: Mapping[str, Any]) -> str:
    """Return by which method it was made, where and with which seed."""
    named = {"learner": "learner", "device": "on", "seed": "seed"}
    return ", ".join(f"{word} {report[key]}" for key, word in named.items() if key in report) + ", by PocketPrune"


def curve_section(run: Record) -> str:
    """Return the training curves: one chart for each quantity, a line in it for each training."""
    charts: dict[str, list[Series]] = {}
    for colour, phase in enumerate(trainings(run)[:MOST_CURVES]):
        for tag, curve in run.curves.items():
            quantity = tag.removeprefix(f"{phase}/")
            if quantity not in (tag, RATE) and len(curve) > 1:
                charts.setdefault(quantity, []).append(Series(phase, curve, colour))
    x = Axis("training step")
    drawn = [chart(name.replace("_", " "), lines, x, Axis(name, name == "accuracy")) for name, lines in charts.items()]
    grid = f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""
    return section("Training", "On training images, as the mean since the point before.", grid)


def trainings(run: Record) -> list[str]:
    """Return the trainings of the run, which have a learning rate; its folder may hold those of others as well."""
    known = run.report.get("phases")
    patterns = [str(phase) for phase in known] if isinstance(known, list) else ["*"]
    found = [tag.removesuffix(f"/{RATE}") for tag in run.curves if tag.endswith(f"/{RATE}")]
    return [phase for phase in found if any(fnmatch.fnmatch(phase, pattern) for pattern in patterns)]


def runtime_section(report: Mapping[str, Any]) -> str:
    """Return the exported files with their speed in other runtimes."""
    found = report.get("export")
    export: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    files = export.get("files")
    if not isinstance(files, list) or not files:
        return ""
    rows = []
    for file in files:
        here, there = number(file.get("latency_ms")), number(file.get("torch_latency_ms"))
        size, off = number(file.get("size")), number(file.get("max_difference"))
        rows.append([
            f"{escape(str(file.get('format')))}<br><small class='muted'>{escape(str(file.get('file')))}</small>",
            "" if size is None else f"{size / 1e6:.2f} MB",
            "" if here is None else f"{here:.2f} ms",
            "" if there is None else f"{there:.2f} ms",
            f"{there / here:.2f}x" if here and there else "",
            "" if off is None else f"{off:.1e}",
        ])  # fmt: skip
    head = ["runtime", "size", f"latency, batch {export['latency_batch']}" if "latency_batch" in export else "latency",
            "in PyTorch", "faster", "largest difference"]  # fmt: skip
    return section("Other runtimes", "The exported files, compared with PyTorch and timed.", table(head, rows))


def setting_section(report: Mapping[str, Any]) -> str:
    """Return the command that repeats the run, where its time went, and every setting."""
    command, config, seconds = report.get("command"), report.get("config"), report.get("seconds")
    line = f"<pre>{escape(str(command))}</pre>" if command else ""
    clocks = seconds.items() if isinstance(seconds, Mapping) else ()
    spent = {name: f"{number(value):.1f} s" for name, value in clocks if number(value)}
    settings = {name: value for name, value in config.items() if value not in (None, "")} if config else {}
    return section(
        "How to repeat it",
        "",
        line,
        definitions(spent),
        details(f"all {len(settings)} settings", definitions(settings)),
    )
