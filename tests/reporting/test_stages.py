"""The table of the networks measured: its rows and columns are those that were measured."""

from pocketprune.reporting.stages import COLUMNS, Column, stage_table

DENSE = {"accuracy": 0.9, "loss": 0.3, "macs": 2_000_000, "params": 1000, "latency_ms": 8.0}
PRUNED = {"accuracy": 0.8, "loss": 0.5, "macs": 1_000_000, "params": 250, "latency_ms": 5.0}


def test_the_table_shows_every_stage_against_the_first() -> None:
    lines = stage_table({"dense": DENSE, "final": PRUNED}, COLUMNS, latency_batch=64).splitlines()
    assert len(lines) == 4
    assert "latency, batch 64" in lines[0]
    assert lines[2].split() == ["dense", "90.00%", "0.3000", "2.00", "M", "100.0%", "1.00", "k", "100.0%",
                                "8.00", "ms", "1.00x"]  # fmt: skip
    assert lines[3].startswith("final ")
    assert lines[3].split()[-8:] == ["1.00", "M", "50.0%", "250", "25.0%", "5.00", "ms", "1.60x"]


def test_columns_follow_from_what_is_measured() -> None:
    rows = {
        "dense": {"loss": 0.5},
        "masked": {"sparsity": 0.25, "loss": 0.25},
        "quantised": {"size": 250, "seconds": 3},
    }
    columns = COLUMNS | {"size": Column("bytes", "{:.0f} B".format, lambda value, first: f"{value / first:.0%}")}
    lines = stage_table(rows, columns, latency_batch=64).splitlines()
    assert lines[0].split() == ["loss", "bytes", "sparsity"]
    assert [line.split() for line in lines[2:]] == [
        ["dense", "0.5000"], ["masked", "0.2500", "0.25"], ["quantised", "250", "B", "100%"]
    ]  # fmt: skip
    starts = [line.index(cell) for line, cell in zip(lines[2:4], ("0.5000", "0.2500"), strict=True)]
    assert starts[0] == starts[1]
