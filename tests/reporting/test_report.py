"""report.json."""

import json
import math
from pathlib import Path

import pytest

from pocketprune.common.errors import UserError
from pocketprune.reporting import report


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
