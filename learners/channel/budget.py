"""The budget of a run's search against what the pruned network is measured to cost."""

from typing import Any

from learners.context import RunContext
from learners.measuring import Row
from pocketprune.reporting import budgets


def asked_and_reached(run: RunContext, dense: Row, pruned: Row) -> dict[str, Any]:
    """Return the "budget" of report.json; {} where nothing was searched."""
    if run.config.channel_pruning.cp_prune_option != "auto":
        return {}
    search = run.config.search
    return budgets.asked_and_reached(search.cp_budget, search.cp_preserve_ratio, dense, pruned)
