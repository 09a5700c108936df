"""A learner is one class: what it declares and measures decides its report, its files and its resumption."""

import json
from pathlib import Path

import pytest
import torch

import run
from learners import LEARNERS, Learner, measuring
from pocketprune.common.steps import steps_of

OWN = '''
import torch

import pocketprune
from learners.base import Learner
from learners.measuring import accuracy, costs
from pocketprune.reporting.stages import COLUMNS, Column
from learners.start import train_dense


def zeros(net):
    weights = [p for p in net.parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


class Halving(Learner):
    """dense network -> the first half of every group's channels at zero -> the channels removed."""

    stages = {"dense": "dense", "masked": "masked", "removed": "without the masked channels"}
    columns = COLUMNS | {"sparsity": Column("zeros", "{:.0%}".format)}
    settings = (*Learner.settings, "search")  # as if that concern were its own
    phases = ("halving",)

    def train(self):
        run = self.run
        self.claim()
        net = self.start() or train_dense(run, run.net)
        stages = {"dense": self.measured(net)}
        groups = [g for g in pocketprune.find_channel_groups(net, run.example) if g.prunable]
        with run.timed("halve"), torch.no_grad():
            for group in groups:
                for (name, axis), indices in group.slices(range(group.size // 2)).items():
                    if name in group.consumers or name.removesuffix(".weight") in group.consumers:
                        net.get_parameter(name).index_fill_(axis, torch.tensor(indices), 0)
        stages["masked"] = self.measured(net)
        kept = {g.name: range(g.size // 2, g.size) for g in groups}
        small = pocketprune.remove_channels(net, run.example, kept)
        self.save(small)
        stages["removed"] = self.measured(small) | {"size": self.artifact.stat().st_size}
        return self.finish(stages)

    def measured(self, net):
        return accuracy(self.run, net) | costs(self.run, net)[0] | {"sparsity": zeros(net)}
'''
NETS = """
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(nn.Conv2d(input_shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 16, num_classes))
"""


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of a person's own learner on a person's own network."""
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "nets.py").write_text(NETS)
    given = (f"--learner={tmp_path / 'own.py'}:Halving", f"--net={tmp_path / 'nets.py'}:build")
    return [*given, f"--workdir={tmp_path / 'out'}", "--nb_epochs=1", "--latency_batch=1", "--device=cpu"]


def test_its_rows_and_columns_are_those_that_it_measures(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(flags) == 0
    table = capsys.readouterr().out.split("accuracy", 1)[1].splitlines()
    assert table[0].split() == ["loss", "MACs", "params", "latency,", "batch", "1", "zeros", "size"]
    assert [line.split("  ")[0] for line in table[2:5]] == ["dense", "masked", "without the masked channels"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"dense", "masked", "removed"} <= set(report)
    assert [row["name"] for row in report["stages"]] == ["dense", "masked", "without the masked channels"]
    assert report["masked"]["sparsity"] > 0.4 > report["removed"]["sparsity"]
    assert report["masked"]["loss"] == pytest.approx(report["removed"]["loss"], rel=1e-4)  # exact removal
    assert report["removed"]["macs"] < report["masked"]["macs"]
    assert report["seconds"]["halve"] > 0
    assert (tmp_path / "out" / "removed_model.pt").stat().st_size == report["removed"]["size"]


def test_it_is_measured_and_claimed_like_any_other(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(flags) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    capsys.readouterr()
    assert run.main([*flags, "--exec_mode=eval"]) == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith("without the masked channels")
    assert f"{report['removed']['loss']:.4f}" in line
    assert (tmp_path / "out" / "checkpoints" / "own.json").exists()
    assert run.main([*flags, "--cp_uniform_preserve_ratio=0.3"]) == 0  # a setting of another learner
    assert run.main([*flags, "--cp_preserve_ratio=0.3"]) == 2
    assert "--cp_preserve_ratio: 0.5 saved, 0.3 now" in capsys.readouterr().err


def test_every_learner_declares_what_it_is() -> None:
    for learner in LEARNERS.values():
        assert issubclass(learner, Learner)
        assert learner.phases
        assert next(iter(learner.stages)) == "dense"
        assert {"run", "data", "net", "train"} <= set(learner.settings)


def test_a_step_is_what_tells_a_pruned_network(tmp_path: Path, flags: list[str]) -> None:
    import pocketprune
    from nets import create_net

    assert run.main(flags) == 0
    torch.manual_seed(0)
    dense = create_net(f"{tmp_path / 'nets.py'}:build", num_classes=10, input_shape=(1, 8, 8))
    assert [s.kind for s in steps_of(pocketprune.load(tmp_path / "out" / "removed_model.pt", dense))] == ["channels"]
