"""Tables and report.json."""

import json
import math
from pathlib import Path

import pytest

from learners import report

DENSE = {"accuracy": 0.9, "loss": 0.3, "macs": 2_000_000, "params": 1000, "latency_ms": 8.0}
PRUNED = {"accuracy": 0.8, "loss": 0.5, "macs": 1_000_000, "params": 250, "latency_ms": 5.0}


def test_the_table_shows_every_stage_against_the_first() -> None:
    lines = report.stage_table({"seed": {}, "dense": DENSE, "pruned": PRUNED}, 64).splitlines()
    assert len(lines) == 4
    assert "latency, batch 64" in lines[0]
    assert lines[2].split() == ["dense", "90.00%", "0.3000", "2.00", "M", "100.0%", "1.00", "k", "100.0%",
                                "8.00", "ms", "1.00x"]  # fmt: skip
    assert lines[3].startswith("final ")
    assert lines[3].split()[-8:] == ["1.00", "M", "50.0%", "250", "25.0%", "5.00", "ms", "1.60x"]


def test_columns_are_aligned() -> None:
    text = report.table([["", "n"], ["long name", "1"], ["x", "1000"]])
    assert text.splitlines() == ["              n", "-" * 15, "long name     1", "x          1000"]


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (999, "999"), (1234, "1.23 k"), (40.8e6, "40.80 M"), (4.1e9, "4.10 G")]
)
def test_counts_are_short(number: float, text: str) -> None:
    assert report.count(number) == text


def test_report_json_is_strict_json(tmp_path: Path) -> None:
    report.write(tmp_path / "report.json", {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (1, 2)}})
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": [1, 2]}}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
