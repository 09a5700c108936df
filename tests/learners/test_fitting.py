"""Fine-tuning never harms: what it ends with is not worse on the validation images than what it began with."""

import json
from pathlib import Path

import pytest
from torch import nn

import run
from learners import measuring
from learners.fitting import masked_quality
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import sparsify
from pocketprune.training.best import Quality
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net

FLAGS = ["--resnet_size=8", "--device=cpu", "--cp_nb_batches=2", "--latency_batch=1", "--threads=1", "--nb_epochs=3"]


def _report(workdir: Path, *flags: str) -> dict:
    assert run.main([*FLAGS, f"--workdir={workdir}", *flags]) == 0
    return json.loads((workdir / "report.json").read_text())


def test_a_rate_that_destroys_the_network_leaves_it_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    _report(tmp_path, "--learner=full-prec")
    harmful = ("--nb_epochs_rat=0.4", "--lrn_rate_init=30", "--lrn_rate_dcy=constant", "--cp_lrn_rate_ft=30")
    groups = ("--cp_list_group=4", "--cp_finetune", "--enbl_dst")
    report = _report(tmp_path, "--learner=channel", "--cp_uniform_preserve_ratio=0.5", *harmful, *groups)
    for value in ("accuracy", "loss"):
        assert report["pruned"][value] == report["before_finetune"][value]
    assert report["finetune"]["best_epoch"] == 0
    assert report["finetune"]["val_accuracy"] == report["finetune"]["start_val_accuracy"]
    told = capsys.readouterr().out
    for phase in ("tune0", "tune1", "finetune"):
        assert f"Training ({phase}): kept the state before the training: none after an epoch was better" in told


def test_the_best_state_is_one_under_the_last_masks() -> None:
    net, accuracies = conv_net(), iter([0.9, 0.8, 0.7, 0.4, 0.5, 0.3])  # at the start, and after each epoch
    ramp = {"name": "linear", "target": 0.5, "steps": 3}  # the masks stay from the fourth epoch on
    controller = sparsify(net, {"schedule": ramp})

    def judge(trained: nn.Module) -> Quality:
        return masked_quality(next(accuracies), 0.0, controller)

    settings = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=5)
    result = train(net, TinySplit(), settings, callbacks=[SparsityCallback(controller)], judge=judge, progress=False)
    assert result.best is not None
    assert (result.best.epoch, result.best.quality[-2]) == (4, 0.5)
    assert all(float((net[place].weight == 0).float().mean()) == 0.5 for place in (0, 3, 8))
