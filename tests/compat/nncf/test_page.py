"""docs/from_nncf.md: its Python blocks run in order, and its configurations are those that create a controller."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pocketprune.compat.nncf import NNCFConfig, create_compressed_model

PAGE = (Path(__file__).parents[3] / "docs" / "from_nncf.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("kinds", ["python", pytest.param("python(?: slow)?", marks=pytest.mark.slow)])
def test_the_blocks_run_in_order(kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks(kinds)):
        exec(compile(block, f"docs/from_nncf.md, block {number}", "exec"), names)
    assert (tmp_path / "coefficients.json").is_file()
    assert (tmp_path / "compressed_model.onnx").is_file() == (kinds != "python")


@pytest.mark.parametrize("text", blocks("json"))
def test_the_configurations(text: str) -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.Conv2d(64, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)),
    )
    config = NNCFConfig.from_dict(json.loads(text))
    config["input_info"]["sample_size"] = [1, 3, 16, 16]
    ctrl, _ = create_compressed_model(net, config)
    target = ctrl.scheduler.target_level
    ctrl.scheduler.epoch_step(200)
    assert ctrl.compression_rate >= target - 1e-9


def test_there_is_something_to_run() -> None:
    assert len(blocks("python")) == 6
    assert len(blocks("python slow")) == 1
    assert len(blocks("json")) == 5


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\(([^)#:]+)[^)]*\.md", PAGE)
    assert all((Path(__file__).parents[3] / "docs" / f"{target}.md").exists() for target in targets)
