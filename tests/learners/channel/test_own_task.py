"""--task: a network with two heads, judged and reported by a metric of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run
from learners import measuring
from pocketprune.common.registry import load_callable

FILE = """
import torch
from torch import nn
import pocketprune

class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.map, self.rest = nn.Conv2d(8, 2, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = self.body(x)
        return {"map": self.map(x), "rest": self.rest(x.mean((2, 3)))}

def build():
    torch.manual_seed(0)
    return TwoHeads()

def flatness(net):
    return -float(net(torch.ones(2, 1, 8, 8))["map"].var())

def task():
    return pocketprune.Task(metric=flatness, name="mean flatness")

def broken():
    return pocketprune.Task(metric=lambda net: float("nan"))

def nothing():
    return 3
"""


def _flags(tmp_path: Path, *rest: str) -> list[str]:
    own = tmp_path / "own.py"
    own.write_text(FILE)
    torch.save(load_callable("--net", f"{own}:build")().state_dict(), tmp_path / "dense.pt")
    return [
        "--learner=channel", f"--net={own}:build", f"--init_checkpoint={tmp_path / 'dense.pt'}", "--nb_epochs_rat=0",
        f"--workdir={tmp_path / 'out'}", "--cp_nb_batches=2", "--latency_batch=2", "--device=cpu",
        *(word.format(own=own) for word in rest),
    ]  # fmt: skip


def test_search_recovery_and_report_speak_of_the_tasks_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    searched = ["--cp_prune_option=auto", "--cp_search=random", "--cp_nb_rlouts=2", "--cp_nb_rlouts_min=1"]
    flags = [*searched, "--cp_preserve_ratio=0.8", "--cp_reward_policy=accuracy", "--cp_block_steps=2"]
    assert run.main(_flags(tmp_path, "--task={own}:task", *flags)) == 0
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert (report["metric"], report["measured_on"]) == ("mean flatness", "the task's own data")
    for stage in ("dense", "before_finetune", "pruned"):
        assert report[stage]["mean flatness"] < 0
        assert "accuracy" not in report[stage]
    assert "blocks reconstructed" in [stage["name"] for stage in report["stages"]]
    assert json.loads((out / "search.json").read_text())["metric"] == "mean flatness"
    assert "mean flatness, held-out, against cost" in (out / "report.html").read_text(encoding="utf-8")
    assert "best on the held-out images mean flatness -" in capsys.readouterr().out
    recorded = EventAccumulator(str(out / "tensorboard")).Reload().Tags()["scalars"]
    assert any("flatness" in tag for tag in recorded)
    assert not any("accuracy" in tag for tag in recorded)


@pytest.mark.parametrize(("flags", "said"), [
    (["--task={own}:nothing"], "own.py:nothing: returned int; a pocketprune.Task is accepted"),
    (["--task={own}:broken"], "task.metric: gave nan for a network; a finite number is accepted"),
    (["--task={own}:task", "--learner=filter"], "--learner=filter takes classification alone"),
    (["--task={own}:task", "--cp_recover_epochs=1"], "--cp_recover_epochs=1.0: imitates class scores"),
])  # fmt: skip
def test_a_mistake_ends_in_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(_flags(tmp_path, *flags)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
