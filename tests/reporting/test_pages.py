"""The pages: what stands on them, that they stand alone, that nothing in a report breaks them."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pocketprune.common.errors import UserError
from pocketprune.reporting.compare_page import compare, compare_page
from pocketprune.reporting.records import Record, read_record
from pocketprune.reporting.run_page import run_page, write_page
from scripts import compare_runs
from tests.reporting.samples import STAGES, record

VOID = {"meta", "link", "br"}


class _Checked(HTMLParser):
    """Collects the text of a page; fails where a tag is closed that is not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _text(page: str) -> str:
    return " ".join(" ".join(_Checked(page).text).split())


TOLD = """resnet on digits|88.50%|-1.50 points|50.0%|1.00 M of 2.00 M|2.00x as fast|something to know|7 / 16
0.4000 → 0.0200|reads the input|not met|52.0%|ONNX Runtime|python run.py --seed=3|12.0 s
number 1: 0.7 at 50.0%; counts 3 7"""


def test_the_page_of_a_run_tells_all_of_it() -> None:
    text = _text(run_page(record()))
    for told in TOLD.replace("\n", "|").split("|"):
        assert told in text, told


def test_only_the_runs_own_trainings_are_drawn() -> None:
    page = run_page(record())
    assert page.count("<polyline") == 2
    assert "filter" not in page


@pytest.mark.parametrize("make", [run_page, lambda run: compare_page([run, run])])
def test_a_page_stands_alone(make: Callable[[Record], str]) -> None:
    page = make(record())
    assert not re.findall(r"https?:|<script|@import|url\(|src=", page)


@pytest.mark.parametrize("make", [run_page, lambda run: compare_page([run])])
def test_text_from_outside_is_never_markup(make: Callable[[Record], str]) -> None:
    bad = "<script>alert(1)</script>\"'&"
    layers = [{"name": bad, "channels": bad, "kept": None, "note": bad}]
    stages = [STAGES[0] | {"name": bad, bad: 1.0}]
    page = make(record(bad, net=bad, command=bad, warnings=[bad], layers=layers, stages=stages, config={bad: bad}))
    assert "<script" not in page
    _Checked(page)


@pytest.mark.parametrize("report", [
    {}, {"stages": 3, "layers": "x", "config": None, "export": [], "warnings": {}, "seconds": 1, "budget": 0.5},
    {"stages": [{"name": "one", "accuracy": None}], "layers": [{}], "export": {"files": [{}]}},
    {"stages": [{"macs": 0}, {"macs": 0, "latency_ms": 0.0}], "budget": {"asked": 1}},
    {"stages": [{"macs": 1, "latency_ms": 1.0}, {"macs": 0, "latency_ms": 0.0}], "phases": 1, "config": {"a": []}},
])  # fmt: skip
def test_a_report_may_lack_anything(report: dict) -> None:
    _Checked(run_page(Record("mine", report)))
    _Checked(compare_page([Record("mine", report), record()]))


def test_a_metric_of_another_name_takes_the_place_of_the_accuracy() -> None:
    stages = [{"name": "dense", "mean_iou": 0.8, "macs": 10}, {"name": "final", "mean_iou": 0.75, "macs": 5}]
    run = record(stages=stages, metric="mean_iou")
    assert "mean iou 0.75 0.8 dense, -0.05" in _text(run_page(run))
    assert "mean iou against MACs" in _text(compare_page([run, record()]))


def test_runs_are_compared_from_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text('{"stages": [{"name": "dense", "accuracy": 0.5, "macs": 10}]}')
    write_page(tmp_path / "a")
    assert "50.00%" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    out = tmp_path / "page.html"
    assert compare_runs.main([str(tmp_path / "a"), str(tmp_path / "b" / "report.json"), "--out", str(out)]) == 0
    assert "2 b: accuracy 50.00%, macs 10" in capsys.readouterr().out
    assert "2 runs compared" in out.read_text(encoding="utf-8")
    assert compare_runs.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(UserError, match="none given"):
        compare([], out)
    with pytest.raises(UserError, match="no folder of a finished run"):
        read_record(tmp_path / "missing")
