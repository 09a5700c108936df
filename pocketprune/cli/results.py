"""What a command leaves behind: the pruned network, its ratios, report.json and report.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from pocketprune.channel_pruning.ratio_list import write_ratio_list
from pocketprune.channel_pruning.results import PruneResult
from pocketprune.channel_pruning.searching.ratios import FoundRatios
from pocketprune.cli.loading import Data
from pocketprune.common.files import write_atomically
from pocketprune.deploy.artifacts import save
from pocketprune.deploy.latency import measure_latency
from pocketprune.graph.tracing import batch_of
from pocketprune.reporting import report
from pocketprune.reporting.budgets import asked_and_reached, budget_warnings
from pocketprune.reporting.run_page import write_page
from pocketprune.reporting.stages import COLUMNS, stage_table
from pocketprune.reporting.tables import layer_table
from pocketprune.search import Budget
from pocketprune.search.journal import CSV_FIELDS, csv_row

ROUNDS, REPEATS = 7, 3  # networks are timed in turns, so that what else the machine does slows them alike

Row = dict[str, float]


@dataclass(frozen=True)
class Command:
    """What was asked: the words of the command line, the settings, the folder to write to."""

    line: str
    net: str
    settings: Mapping[str, Any]
    out: Path


def write_result(
    command: Command,
    dense: nn.Module,
    data: Data,
    result: PruneResult,
    *,
    budget: Budget | None = None,
    found: FoundRatios | None = None,
) -> None:
    """Save the pruned network, measure both, write the report, and print what became of the network."""
    out = command.out
    save(out / "pruned_model.pt", result.net)
    ratios = [layer.preserve_ratio for layer in result.layers]
    write_ratio_list(out / "ratio.list", [layer.name for layer in result.layers], ratios)
    rows = _rows(dense, data, result)
    reached = asked_and_reached(budget.kind, budget.share, *rows.values()) if budget else {}
    warnings = [*result.warnings, *budget_warnings(reached)]
    if found is not None and budget is not None:
        _write_search(out, data, budget, found)
    batch = batch_of(data.batches[0])
    report.write(
        out / "report.json",
        {
            "net": command.net,
            "learner": "prune" if found is None else "search",
            "command": command.line,
            "config": {**command.settings, "latency_batch": batch},
            "metric": data.task.name,
            "measured_on": data.measured_on,
            "stages": [{"name": name, **row} for name, row in rows.items()],
            "layers": report.layer_entries(result.layers),
            "output_error": result.output_error,
            "warnings": warnings,
            "budget": reached,
            "seconds": result.seconds,
        },
    )
    write_page(out)
    print(layer_table(result.layers))
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"\n{stage_table(rows, COLUMNS, latency_batch=batch)}\n")
    print(f"Output error on held-out inputs: {result.output_error:.4f} of its variance")
    print(f"{out} holds pruned_model.pt, ratio.list, report.html, report.json")


def _rows(dense: nn.Module, data: Data, result: PruneResult) -> dict[str, Row]:
    """Return what is measured of the dense and of the pruned network."""
    nets = {"dense": dense, "pruned": result.net}
    counts = {"dense": (result.dense_macs, result.dense_params), "pruned": (result.macs, result.params)}
    example = data.batches[0]
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(ROUNDS):
        for name, net in nets.items():
            times[name].append(measure_latency(net, example, repeats=REPEATS))
    return {
        name: ({data.task.name: data.task.measure(net)} if data.task.metric is not None else {})
        | {"macs": counts[name][0], "params": counts[name][1], "latency_ms": median(times[name])}
        for name, net in nets.items()
    }


def _write_search(out: Path, data: Data, budget: Budget, found: FoundRatios) -> None:
    """Write search.csv, every network scored, and search.json, what was asked and chosen."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([CSV_FIELDS, *map(csv_row, found.history)])
    write_atomically(out / "search.csv", text.getvalue().encode())
    chosen: Sequence[dict[str, Any]] = [{"share": found.share, "accuracy": found.score.accuracy, "chosen": True}]
    asked = {"method": "search", "budget": budget.kind, "asked": budget.share, "finalists": chosen}
    metric = data.task.name if data.task.metric is not None else "minus the divergence"
    report.write(out / "search.json", asked | {"metric": metric})
