"""A person's own network and weights on the command line: what fits is pruned, what does not is told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import run

OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, num_classes, input_shape, width=8):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(input_shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU(),
                                      nn.Conv2d(width, 8, 3), nn.ReLU(), nn.Flatten())
        self.classifier = nn.Linear(8 * 16, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x))

class Recurrent(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.conv, self.cell = nn.Conv2d(input_shape[0], 8, 3), nn.LSTMCell(8, 7)
        self.out = nn.Linear(7, num_classes)

    def forward(self, x):
        state = None
        for step in self.conv(x).mean(2).unbind(-1):
            state = self.cell(step, state)
        return self.out(state[0])

def wide(num_classes, input_shape):
    return Own(num_classes, input_shape, width=9)

def branching(num_classes, input_shape):
    net = Own(num_classes, input_shape)
    net.features.register_forward_pre_hook(lambda module, args: (args[0] if args[0].sum() > 0 else -args[0],))
    return net

def two_inputs(num_classes, input_shape):
    class Two(Own):
        def forward(self, x, extra):
            return super().forward(x) + extra
    return Two(num_classes, input_shape)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a person's module, which is importable from there alone."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _module(folder: Path) -> str:
    return next(folder.glob("own_*.py")).stem


def _weights(folder: Path, prefix: str = "module.") -> dict[str, torch.Tensor]:
    space: dict = {"__name__": "own"}
    exec(OWN, space)
    torch.manual_seed(3)
    return {prefix + name: t for name, t in space["Own"](10, (1, 8, 8)).state_dict().items()}


def _flags(folder: Path, net: str, *more: str) -> list[str]:
    return [
        f"--net={net}",
        "--learner=channel",
        f"--workdir={folder / 'out'}",
        "--nb_epochs_rat=0",
        "--device=cpu",
        "--cp_nb_batches=2",
        "--latency_batch=1",
        "--cp_uniform_preserve_ratio=0.5",
        *more,
    ]


def _refusal(capsys: pytest.CaptureFixture[str], flags: list[str]) -> str:
    capsys.readouterr()
    assert run.main(flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("spec", ["{module}:Own", "{folder}/{module}.py:Own"])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_own_network_with_own_weights(folder: Path, capsys: pytest.CaptureFixture[str], spec: str, kind: str) -> None:
    """Weights in either kind of file, their names with the prefix that a parallel wrapper leaves."""
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(_weights(folder), path)
    else:
        torch.save({"state_dict": _weights(folder), "epoch": 3}, path)
    net = spec.format(folder=folder, module=_module(folder))
    assert run.main(_flags(folder, net, f"--init_checkpoint={path}")) == 0
    assert "Training (dense)" not in capsys.readouterr().out
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [layer["kept"] for layer in report["layers"]] == [1, 4]
    assert report["pruned"]["params"] < report["dense"]["params"]


def test_weights_that_do_not_fit_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = _weights(folder)
    content["module.extra"] = content.pop("module.classifier.bias")
    torch.save(content, folder / "weights.pt")
    checkpoint = f"--init_checkpoint={folder / 'weights.pt'}"
    line = _refusal(capsys, _flags(folder, f"{_module(folder)}:wide", checkpoint))
    assert line.startswith(f"error: {checkpoint}: does not fit --net")
    for words in (
        "1 missing: classifier.bias",
        "1 unexpected: extra",
        "other shape: features.0.weight (8, 1, 3, 3) instead of (9, 1, 3, 3)",
    ):
        assert words in line
    assert not (folder / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("branching", "network Own cannot be traced: control flow in"),
        ("two_inputs", "the network fails on images (2, 1, 8, 8) float32: TypeError: "),
        ("Owm", "has no callable named 'Owm' (did you mean Own?)"),
    ],
)
def test_networks_that_cannot_be_pruned(folder: Path, capsys: pytest.CaptureFixture[str], net: str, words: str) -> None:
    torch.save(_weights(folder), folder / "weights.pt")
    line = _refusal(capsys, _flags(folder, f"{_module(folder)}:{net}", f"--init_checkpoint={folder / 'weights.pt'}"))
    assert words in line
    results = {"report.json", "pruned_model.pt", "ratio.list"}
    assert not results & {path.name for path in (folder / "out").rglob("*")}


def test_layers_name_the_cell_that_keeps_its_channels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(_flags(folder, f"{_module(folder)}:Recurrent", "--exec_mode=layers")) == 0
    assert "lstm_cell in cell: this operator is not known to keep channels apart" in capsys.readouterr().out
