"""The search of a run, on its page: what was asked and reached, every roll-out, the finalists, the chosen one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketprune.reporting.budgets import UNITS
from pocketprune.reporting.charts import Axis, Series, chart
from pocketprune.reporting.markup import section, table
from pocketprune.reporting.records import Record, number
from pocketprune.reporting.scales import Point


def search_section(run: Record) -> str:
    """Return the search; nothing where there was none."""
    if not run.rollouts and not run.report.get("budget"):
        return ""
    return section("The search", _sentence(run), _asked_and_reached(run.report), _cloud(run))


def _sentence(run: Record) -> str:
    rollouts = sum(row.get("kind") == "rollout" for row in run.rollouts)
    method = run.search.get("method", "search")
    return f"{method}: {rollouts} networks scored on held-out images of the training set, without training them."


def _asked_and_reached(report: Mapping[str, Any]) -> str:
    """Return the budget: what was asked, what the saved network was measured to have."""
    found = report.get("budget")
    budget: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    asked, reached = number(budget.get("asked")), number(budget.get("reached"))
    if asked is None or reached is None:
        return ""
    kind = str(budget.get("kind"))
    verdict = "met" if budget.get("met") else "not met"
    head = ["budget", "asked", "reached", ""]
    return table(head, [[UNITS.get(kind, kind), f"{asked:.1%}", f"{reached:.1%}", verdict]])


def _cloud(run: Record) -> str:
    kind = str(run.search.get("budget", "macs"))
    finalists = run.search.get("finalists")
    finalists = [f for f in finalists if isinstance(f, Mapping)] if isinstance(finalists, list) else []
    series = [
        _scored(run, "probe", Series("a single layer cut", [], 0, "circle", 2.5, pale=True)),
        _scored(run, "rollout", Series("roll-outs", [], 0, "circle", 3.5)),
        _finalists([f for f in finalists if not f.get("chosen")], Series("finalists", [], 2, "diamond", 5)),
        _finalists([f for f in finalists if f.get("chosen")], Series("chosen", [], 1, "triangle", 7)),
    ]
    metric = str(run.search.get("metric", "accuracy"))
    x, y = Axis(f"share of the dense {UNITS.get(kind, kind)}", True), Axis(metric, metric == "accuracy")
    return chart(f"{metric}, held-out, against cost", series, x, y)


def _scored(run: Record, kind: str, look: Series) -> Series:
    points: list[Point] = []
    told = []
    for row in run.rollouts:
        share, accuracy = number(row.get("share")), number(row.get("accuracy"))
        if row.get("kind") == kind and share is not None and accuracy is not None:
            points.append((share, accuracy))
            told.append(f"number {row.get('index')}: {accuracy:.4g} at {share:.1%}; counts {row.get('counts')}")
    return Series(look.name, points, look.colour, look.shape, look.size, told, pale=look.pale)


def _finalists(found: list[Mapping[str, Any]], look: Series) -> Series:
    known = [(share, accuracy) for f in found if (share := number(f.get("share"))) is not None
             and (accuracy := number(f.get("accuracy"))) is not None]  # fmt: skip
    told = [f"{look.name}, pruned as at the end: {accuracy:.4g} at {share:.1%}" for share, accuracy in known]
    return Series(look.name, known, look.colour, look.shape, look.size, told)
