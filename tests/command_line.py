"""Running the command line in tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run
from nets import create_net

ROOT = Path(__file__).parent.parent
SMALL = ["--resnet_size=8", "--nb_epochs=2", "--device=cpu", "--cp_nb_batches=4", "--latency_batch=8"]


def succeed(*arguments: str | Path) -> None:
    assert run.main([str(argument) for argument in arguments]) == 0


def report_of(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line a command line is refused with."""
    capsys.readouterr()
    assert run.main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def shell(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    texts = [str(part) for part in command]
    return subprocess.run(texts, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def untrained_weights(folder: Path) -> Path:
    """The file of an untrained ResNet-20's state dict."""
    torch.manual_seed(0)
    net = create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=20)
    torch.save(net.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


OWN_NETS = """
import torch
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, num_classes))

class Untraceable(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.linear(x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1))
"""
