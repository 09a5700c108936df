"""A search's budget against what the pruned network is measured to cost, for reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNITS = {"macs": "MACs", "params": "parameters", "latency": "latency"}
COLUMN = {"macs": "macs", "params": "params", "latency": "latency_ms"}
TOLERANCE = {"macs": 0.005, "params": 0.005, "latency": 0.02}  # two timings of one network differ by about two points


def asked_and_reached(
    kind: str, asked: float, dense: Mapping[str, float], pruned: Mapping[str, float]
) -> dict[str, Any]:
    """Return the "budget" of report.json: its kind, the share asked and reached, whether it is met.

    It is met if the network does not cost more than that. The search itself tells where no counts cost as much.

    Args:
        kind: "macs" | "params" | "latency".
        asked: share of the dense network's cost.
        dense: the measured costs of the dense network: macs, params, latency_ms.
        pruned: those of the pruned one.
    """
    reached = pruned[COLUMN[kind]] / dense[COLUMN[kind]]
    return {"kind": kind, "asked": asked, "reached": reached, "met": reached <= asked + TOLERANCE[kind]}


def budget_warnings(budget: Mapping[str, Any]) -> list[str]:
    """Return a line for a budget that is not met; none for one that is, or where there is none."""
    if not budget or budget["met"]:
        return []
    return [
        f"the budget is not met: {budget['asked']:.1%} of the dense network's {UNITS[budget['kind']]} asked, "
        f"{budget['reached']:.1%} measured"
    ]
