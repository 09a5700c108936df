"""Tables and report.json."""

import json
import math
from pathlib import Path

import pytest

from learners.reporting import report
from pocketprune import ChannelGroup
from pocketprune.common.errors import UserError

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


def test_groups_are_listed_with_what_touches_them() -> None:
    named = {"exact": True, "channels": (), "products": ()}
    groups = [
        ChannelGroup("a", 16, True, "", producers=("a", "b", "c"), consumers=("d",), **named),
        ChannelGroup("d", 4, False, "network output", producers=("d",), consumers=(), **named),
        ChannelGroup("e", 8, True, "", producers=("e",), consumers=("f",), **(named | {"exact": False})),
    ]
    lines = report.group_listing(groups).splitlines()
    assert lines[2].split("  ")[0] == "a"
    assert "a + b + 1 more -> d" in lines[2]
    assert lines[2].endswith("yes")
    assert "d -> nothing" in lines[3]
    assert lines[3].endswith("no: network output")
    assert lines[4].endswith("inexact")


def test_a_section_is_added_to_the_report_there_is(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report.write(path, {"net": "resnet", "export": "of before"})
    report.add(path, "export", {"files": []})
    assert json.loads(path.read_text()) == {"net": "resnet", "export": {"files": []}}
    path.unlink()
    report.add(path, "export", 1)
    assert json.loads(path.read_text()) == {"export": 1}
    path.write_text("{ not json")
    with pytest.raises(UserError, match="not readable as JSON"):
        report.add(path, "export", 1)


def test_report_json_is_strict_json(tmp_path: Path) -> None:
    report.write(tmp_path / "report.json", {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (1, 2)}})
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": [1, 2]}}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
