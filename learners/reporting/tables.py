"""Tables for the terminal, by the names that learners know them by."""

from pocketprune.reporting.tables import count, group_listing, layer_listing, layer_table, table

__all__ = ["count", "group_listing", "layer_listing", "layer_table", "table"]
