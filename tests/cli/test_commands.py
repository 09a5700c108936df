"""The installed command: what it writes, and the one line that a mistake ends in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from pocketprune.cli.main import main

ROOT = Path(__file__).parents[2]
FILE = """
import torch
from torch import nn
import pocketprune

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))

def images():
    torch.manual_seed(1)
    return [torch.randn(20, 1, 8, 8) for _ in range(2)]

def labelled():
    net = build()
    return ((x, net(x).argmax(1)) for x in images())

def task():
    return pocketprune.Task(metric=lambda net: -float(net(images()[0]).square().mean()), name="small", batches=images)

def broken():
    return pocketprune.Task(metric=lambda net: float("nan"), batches=images)

def nothing():
    return 3

def fails():
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return str(path)


def _run(own: str, command: str, *rest: str | Path, net: str = "build", data: str = "images") -> int:
    return main([command, "--net", f"{own}:{net}", "--data", f"{own}:{data}", *map(str, rest)])


def _report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def test_a_network_is_pruned_loaded_and_compared(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert _run(own, "layers", "--template", tmp_path / "list") == 0
    assert "can input channels be removed?" in capsys.readouterr().out
    (tmp_path / "list").write_text("1, 0.5, 0.5")
    assert _run(own, "prune", "--layers", "all", "--ratios", tmp_path / "list", "--out", one, data="labelled") == 0
    report = _report(one)
    assert [stage["name"] for stage in report["stages"]] == ["dense", "pruned"]
    assert report["stages"][0]["accuracy"] == 1.0
    assert report["stages"][1]["macs"] < report["stages"][0]["macs"]
    assert "pocketprune prune" in (one / "report.html").read_text(encoding="utf-8")
    assert _run(own, "prune", "--weights", one / "pruned_model.pt", "--ratio", "1", "--out", other) == 0
    assert _report(other)["stages"][0]["macs"] == report["stages"][1]["macs"]
    assert main(["compare", str(one), str(other), "--out", str(tmp_path / "page.html")]) == 0
    assert "2 other: macs" in capsys.readouterr().out


def test_a_search_meets_its_budget_and_tells_the_tasks_metric(own: str, tmp_path: Path) -> None:
    command = ["search", "--net", f"{own}:build", "--task", f"{own}:task", "--share", "0.7", "--rollouts", "2"]
    assert main([*command, "--method", "uniform", "--out", str(tmp_path)]) == 0
    report = _report(tmp_path)
    reached = report["stages"][1]["macs"] / report["stages"][0]["macs"]
    assert report["budget"] == {"kind": "macs", "asked": 0.7, "reached": reached, "met": False}  # the counts are coarse
    assert sum(line.startswith("the budget is not met: 70.0%") for line in report["warnings"]) == 1
    assert report["stages"][1]["small"] < 0
    assert json.loads((tmp_path / "search.json").read_text())["metric"] == "small"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "small, held-out, against cost" in page


@pytest.mark.slow
def test_a_pruned_network_is_exported(own: str, tmp_path: Path) -> None:
    assert _run(own, "prune", "--out", tmp_path) == 0
    weights = tmp_path / "pruned_model.pt"
    assert _run(own, "export", "--weights", weights, "--to", "pt2", "--out", tmp_path) == 0
    assert _report(tmp_path)["export"]["files"][0]["file"] == "pruned_model.pt2"


@pytest.mark.parametrize(("words", "said"), [
    (["prune", "--net", "{own}:build"], "--data: none given"),
    (["prune", "--net", "{own}:buidl", "--data", "{own}:images"], "did you mean build?"),
    (["prune", "--net", "{own}:nothing", "--data", "{own}:images"], "returned int; a torch.nn.Module is accepted"),
    (["prune", "--net", "{own}:fails", "--data", "{own}:images"], "RuntimeError: on purpose"),
    (["prune", "--net", "{own}:build", "--data", "{own}:nothing"], "returned int; a list or loader of batches"),
    (["prune", "--net", "{own}:build", "--data", "{own}:images", "--ratio", "2"], "--ratio: 2.0 given; a preserve"),
    (["prune", "--net", "{own}:build", "--data", "{own}:images", "--selection", "las"], "did you mean 'lasso'?"),
    (["prune", "--net", "{own}:build", "--data", "{own}:images", "--device", "cuda:99"], "--device=cuda:99: not avail"),
    (["prune", "--net", "{own}:build", "--data", "{own}:images", "--weights", "no.pt"], "--weights=no.pt: no such"),
    (["prune", "--net", "{own}:build", "--task", "{own}:build"], "returned Sequential; a pocketprune.Task"),
    (["prune", "--net", "{own}:build", "--data", "{own}:images", "--task", "classification"], "no pairs of images"),
    (["search", "--net", "{own}:build", "--task", "{own}:broken"], "--task: its metric: gave nan"),
    (["compare", "nowhere"], "nowhere: no folder of a finished run"),
    (["prune"], "the following arguments are required: --net (pocketprune prune --help)"),
    (["prun"], "invalid choice: 'prun'"),
])  # fmt: skip
def test_a_mistake_ends_in_one_line(
    words: list[str],
    said: str,
    own: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(own=own) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_help_teaches_and_the_entry_point_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prune", "--help"])
    assert left.value.code == 0
    assert "--shared-input" in capsys.readouterr().out
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["pocketprune"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.slow
def test_a_wheel_builds_clean_and_works_outside_of_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"  # a build leaves files beside what it builds
    shutil.copytree(ROOT / "pocketprune", source / "pocketprune")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, capture_output=True, timeout=300)
    wheel = next(tmp_path.glob("pocketprune-*.whl"))
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(tmp_path / "lib"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    assert not {path.name for path in (tmp_path / "lib").iterdir()} & {"tests", "learners", "config"}
    command = [sys.executable, "-m", "pocketprune", "--help"]
    told = subprocess.run(command, cwd=tmp_path / "lib", check=True, capture_output=True, text=True, timeout=120)
    assert "pocketprune prune" in told.stdout
