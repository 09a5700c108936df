"""The budget of a search against what the pruned network is measured to cost."""

from typing import Any

from learners.context import RunContext
from learners.measuring import Row

UNITS = {"macs": "MACs", "params": "parameters", "latency": "latency"}
COLUMN = {"macs": "macs", "params": "params", "latency": "latency_ms"}
TOLERANCE = {"macs": 0.005, "params": 0.005, "latency": 0.02}  # two timings of one network differ by about two points


def asked_and_reached(run: RunContext, dense: Row, pruned: Row) -> dict[str, Any]:
    """Return the "budget" of report.json: its kind, the share asked and reached, whether it is met; {} without one.

    A budget is met if the network does not cost more than that. The search itself tells where no counts cost as much.
    """
    if run.config.channel_pruning.cp_prune_option != "auto":
        return {}
    kind, asked = run.config.search.cp_budget, run.config.search.cp_preserve_ratio
    reached = pruned[COLUMN[kind]] / dense[COLUMN[kind]]
    return {"kind": kind, "asked": asked, "reached": reached, "met": reached <= asked + TOLERANCE[kind]}


def budget_warnings(budget: dict[str, Any]) -> list[str]:
    """Return a line for a budget that is not met; none for one that is."""
    if not budget or budget["met"]:
        return []
    return [
        f"the budget is not met: {budget['asked']:.1%} of the dense network's {UNITS[budget['kind']]} asked, "
        f"{budget['reached']:.1%} measured"
    ]
