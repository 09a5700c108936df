"""The sweep over a model library: what it counts, and how it goes on where it was stopped."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def _plain(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.Flatten(), nn.Linear(64, 2))


def _failing() -> nn.Module:
    raise RuntimeError("on purpose")


def test_a_sweep_counts_the_smallest_models_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    libraries, sweep = import_module("model_libraries"), import_module("sweep_models")
    builders = {"wide": lambda: _plain(8), "narrow": lambda: _plain(6), "broken": _failing}
    families = {"plain": ["wide", "narrow"], "strange": ["broken"]}
    library = libraries.Library(lambda _: families, lambda name: builders[name](), lambda _: 8)
    monkeypatch.setitem(libraries.LIBRARIES, "timm", lambda: library)
    results = tmp_path / "timm.jsonl"
    asked = ["timm", "--results", str(results), "--without", "prune", "export"]

    assert sweep.main([*asked, "--most", "1"]) == 0
    assert "timm: 1 models: 1 exact" in capsys.readouterr().out
    assert sweep.main(asked) == 1
    said = capsys.readouterr().out
    assert "narrow" not in said
    assert "find: RuntimeError: on purpose" in said
    assert "timm: 2 models: 1 exact, 1 find failed" in said
    first = json.loads(results.read_text().splitlines()[0])
    assert (first["name"], first["exact"]) == ("narrow", 2)
    assert 0.4 < first["macs"] < 0.6
