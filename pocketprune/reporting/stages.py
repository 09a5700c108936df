"""The table of the networks that a run measured: a row each, a column for whatever was measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pocketprune.reporting.tables import count, table

HIDDEN = ("seconds",)  # of a row in report.json, not of the table


@dataclass(frozen=True)
class Column:
    """How one measured value is shown.

    Attributes:
        title: its head; {latency_batch} stands for that setting.
        text: the value -> its cell.
        share: (the value, the first row's value) -> a second cell beside it; None: there is none.
    """

    title: str
    text: Callable[[float], str]
    share: Callable[[float, float], str] | None = None


def percent(value: float, first: float) -> str:
    """Return a value as a share of the first row's."""
    return f"{value / first:.1%}"


def times_faster(value: float, first: float) -> str:
    """Return how many times less than the first row's a duration is."""
    return f"{first / value:.2f}x"


COLUMNS: dict[str, Column] = {
    "accuracy": Column("accuracy", "{:.2%}".format),
    "loss": Column("loss", "{:.4f}".format),
    "macs": Column("MACs", count, percent),
    "params": Column("params", count, percent),
    "latency_ms": Column("latency, batch {latency_batch}", "{:.2f} ms".format, times_faster),
}
"""Name of a measured value -> how it is shown, in the order of the table."""


def stage_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, Column], *, latency_batch: int) -> str:
    """Return the networks measured as a table.

    Args:
        rows: title -> measured values by the name of their column. A value may be absent from some of them.
        columns: how values are shown, in this order; values of other names follow, shown plainly.
    """
    measured = list(dict.fromkeys(name for row in rows.values() for name in row if name not in HIDDEN))
    names = [*(name for name in columns if name in measured), *(name for name in measured if name not in columns)]
    shown = {name: columns.get(name) or Column(name.replace("_", " "), _plain) for name in names}
    head = [""]
    for column in shown.values():
        head += [column.title.format(latency_batch=latency_batch), *([""] if column.share else [])]
    return table([head, *(_cells(title, row, rows, shown) for title, row in rows.items())])


def _cells(
    title: str,
    row: Mapping[str, float],
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, Column],
) -> Sequence[str]:
    cells = [title]
    for name, column in columns.items():
        cells.append(column.text(row[name]) if name in row else "")
        if column.share:
            first = next(other[name] for other in rows.values() if name in other)
            cells.append(column.share(row[name], first) if name in row else "")
    return cells


def _plain(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
