"""The table of the networks that a run measured, by the names that learners know it by."""

from pocketprune.reporting.stages import COLUMNS, Column, percent, stage_table, times_faster

__all__ = ["COLUMNS", "Column", "percent", "stage_table", "times_faster"]
