"""Statistics: what is masked at present, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupRow:
    """One channel group.

    Attributes:
        name: of the group.
        channels: how many it has.
        kept: how many of them are not masked.
        reason: why it is left alone; "" where a rule takes it.
    """

    name: str
    channels: int
    kept: int
    reason: str = ""

    @property
    def level(self) -> float:
        """The share that is masked."""
        return 1 - self.kept / self.channels


@dataclass(frozen=True)
class RuleRow:
    """One rule: its level at present.

    Attributes:
        groups: its patterns.
        share_of: what the level is a share of.
        asked: the level of the schedule.
        reached: the share that is masked.
        target: the level at the end.
    """

    groups: str
    share_of: str
    asked: float
    reached: float
    target: float


@dataclass(frozen=True)
class Statistics:
    """What is masked at present; printed as a table.

    Attributes:
        groups: all channel groups in forward order.
        rules: all rules.
        dense_macs, macs: multiply-adds of the whole network and of the one without what is masked.
        dense_params, params: their parameters.
    """

    groups: tuple[GroupRow, ...]
    rules: tuple[RuleRow, ...]
    dense_macs: float
    macs: float
    dense_params: float
    params: float

    def __str__(self) -> str:
        """Return the tables of groups, costs and rules."""
        rows = [(g.name, str(g.channels), str(g.kept), f"{g.level:.3f}", g.reason) for g in self.groups]
        costs = [("MACs", self.dense_macs, self.macs), ("parameters", self.dense_params, self.params)]
        totals = [(name, f"{whole:,.0f}", f"{left:,.0f}", f"{1 - left / whole:.3f}") for name, whole, left in costs]
        rules = [(r.groups, r.share_of, f"{r.asked:.3f}", f"{r.reached:.3f}", f"{r.target:.3f}") for r in self.rules]
        return "\n\n".join(
            (
                _table(("group", "channels", "kept", "level", ""), rows),
                _table(("", "dense", "without masked", "level"), totals),
                _table(("rule", "share of", "asked", "reached", "target"), rules),
            )
        )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, the first column to the left and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numbers = [_is_number(column) for column in zip(*rows, strict=True)] if rows else [False] * len(head)
    lines = []
    for row in (head, *rows):
        cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numbers, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(column: tuple[str, ...]) -> bool:
    return all(cell.replace(",", "").replace(".", "").isdigit() for cell in column)
