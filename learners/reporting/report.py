"""report.json, by the names that learners know it by."""

from pocketprune.reporting.report import add, layer_entries, write

__all__ = ["add", "layer_entries", "write"]
