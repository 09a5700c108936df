"""One workdir, one run of each learner: resumed, refused, or started over; and the training flags on the way."""

import errno
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

import run
from learners import measuring
from nets import create_net
from pocketprune.common import files
from pocketprune.common.files import read_tensors
from pocketprune.training.checkpoint import Checkpoints

SMALL = ["--learner=channel", "--resnet_size=8", "--nb_epochs=1", "--device=cpu", "--cp_nb_batches=1"]
SMALL += ["--latency_batch=1", "--save_step=4", "--cp_uniform_preserve_ratio=0.5"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


def _run(workdir: Path, *flags: str) -> int:
    return run.main([*SMALL, f"--workdir={workdir}", *flags])


def _refusal(capsys: pytest.CaptureFixture[str], workdir: Path, *flags: str) -> str:
    capsys.readouterr()
    assert _run(workdir, *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1, lines  # beside progress bars, which a slow machine shows
    return lines[0].strip()


def _report(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained ResNet-8 for the digits."""
    torch.manual_seed(0)
    torch.save(
        create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8).state_dict(), tmp_path / "weights.pt"
    )
    return tmp_path / "weights.pt"


def test_other_flags_are_refused_and_listed_unless_overwritten(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--init_checkpoint={weights}", "--nb_epochs_rat=0")
    assert _run(tmp_path / "out", *flags) == 0
    changed = ("--cp_uniform_preserve_ratio=0.25", "--cp_selection=obs", "--summ_step=3", "--cp_cache_gb=1")
    message = _refusal(capsys, tmp_path / "out", *flags, *changed)
    assert "--cp_selection: lasso saved, obs now; --cp_uniform_preserve_ratio: 0.5 saved, 0.25 now (--" in message
    assert "--overwrite" in message
    assert "summ_step" not in message
    assert _run(tmp_path / "out", *flags, "--summ_step=3", "--exec_mode=eval") == 0
    assert _run(tmp_path / "out", *flags, *changed, "--overwrite") == 0
    assert _report(tmp_path / "out")["layers"][3]["preserve_ratio"] == 0.25
    assert _run(tmp_path / "out", *flags, *changed) == 0


def test_another_learner_in_the_same_workdir_is_no_other_run(tmp_path: Path) -> None:
    assert _run(tmp_path, "--learner=full-prec") == 0
    assert _run(tmp_path, "--nb_epochs_rat=0") == 0
    assert {"full-prec.json", "channel.json", "dense.pt"} <= {p.name for p in (tmp_path / "checkpoints").iterdir()}


def test_a_finished_run_told_again_trains_nothing(tmp_path: Path, weights: Path) -> None:
    flags = (f"--init_checkpoint={weights}", "--cp_bn_reestimate", "--cp_block_steps=3", "--cp_recover_epochs=0.5")
    assert _run(tmp_path, *flags) == 0
    first, model = _report(tmp_path), str(read_tensors(tmp_path / "pruned_model.pt"))
    assert [row["name"] for row in first["stages"]] == [
        "dense",
        "before recovery",
        "batch norms re-estimated",
        "blocks reconstructed",
        "recovered end to end",
        "final",
    ]
    assert first["before_finetune"]["accuracy"] == first["stages"][4]["accuracy"]
    assert _run(tmp_path, *flags) == 0
    again = _report(tmp_path)
    assert str(read_tensors(tmp_path / "pruned_model.pt")) == model
    for key in ("prune", "finetune"):
        assert again["seconds"][key] >= first["seconds"][key] - 0.5
    pairs = zip(first["stages"], again["stages"], strict=True)
    assert all(a["accuracy"] == b["accuracy"] and a["loss"] == b["loss"] for a, b in pairs)


def test_sigterm_while_pruning_saves_and_the_run_continues(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--init_checkpoint={weights}", "--nb_epochs_rat=0")
    assert _run(tmp_path / "whole", *flags) == 0
    save = Checkpoints.save

    def terminating(self: Checkpoints, state: dict, step: int) -> Path:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(self, state, step)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", terminating)
        assert _run(tmp_path / "cut", *flags) == 143
    assert "stopped: prune: SIGTERM came by layer 4" in capsys.readouterr().err
    assert _run(tmp_path / "cut", *flags) == 0
    models = [torch.load(tmp_path / name / "pruned_model.pt", weights_only=True) for name in ("whole", "cut")]
    assert str(models[0]) == str(models[1])


@pytest.mark.parametrize("fault", [errno.ENOSPC, pytest.param(errno.EROFS, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("at", "good"), [(2, "prune-00000001"), (14, "finetune-00000008")])
def test_a_full_or_read_only_disk_in_mid_run_leaves_the_last_good_checkpoint(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: int,
    good: str,
    fault: int,
) -> None:
    def failing(_handle: int) -> None:
        raise OSError(fault, os.strerror(fault))

    real = os.fsync

    def refusing(self: Checkpoints, state: dict, step: int, save: object = Checkpoints.save) -> Path:
        refusing.count += 1
        if refusing.count > at:
            monkeypatch.setattr(files.os, "fsync", failing)
        return save(self, state, step)

    refusing.count = 0
    flags = (f"--init_checkpoint={weights}",)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", refusing)
        message = _refusal(capsys, tmp_path / "out", *flags)
        monkeypatch.setattr(files.os, "fsync", real)
    assert "cannot write" in message
    assert os.strerror(fault) in message
    assert good in message
    assert torch.load(next((tmp_path / "out" / "checkpoints").glob(f"{good}.pt")), weights_only=True)
    assert _run(tmp_path / "out", *flags) == 0


@pytest.mark.parametrize("place", ["call", "thread"])
def test_training_curves_on_a_full_disk_end_the_run_in_one_line(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(threading, "excepthook", run._thread_failed)
    monkeypatch.setattr(*{"call": (SummaryWriter, "add_scalar"), "thread": (RecordWriter, "write")}[place], full)
    message = _refusal(capsys, tmp_path / "out", f"--init_checkpoint={weights}")
    assert message == f"error: cannot write {tmp_path / 'out' / 'tensorboard'}: No space left on device"


def test_sigterm_between_the_phases_ends_the_run_in_a_line(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert _run(tmp_path, f"--init_checkpoint={weights}", "--nb_epochs_rat=0") == 143
    assert capsys.readouterr().err == "stopped: SIGTERM came; the same command resumes from what is saved\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert _run(tmp_path, f"--init_checkpoint={weights}", "--nb_epochs_rat=0") == 0


def test_distillation_changes_the_fine_tuning(tmp_path: Path, weights: Path) -> None:
    losses = set()
    for number, flags in enumerate([(), ("--enbl_dst",), ("--enbl_dst", "--nodst_scale_gradient")]):
        assert _run(tmp_path / str(number), f"--init_checkpoint={weights}", *flags) == 0
        losses.add(_report(tmp_path / str(number))["pruned"]["loss"])
    assert len(losses) == 3


def test_full_precision_learns_from_a_larger_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=14)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    named = (f"--dst_checkpoint={tmp_path / 'teacher.pt'}", "--enbl_dst", "--learner=full-prec")
    assert "does not fit --dst_net" in _refusal(capsys, tmp_path / "out", *named)
    assert _run(tmp_path / "out", *named, "--dst_resnet_size=14") == 0
    kept = torch.load(tmp_path / "out" / "checkpoints" / "dense.pt", weights_only=True)
    assert len(kept) < len(teacher.state_dict())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cp_list_group=0",), "--cp_list_group=0"),
        (("--cp_list_group=-3",), "--cp_list_group=-3"),
        (("--cp_list_group=2.5",), "--cp_list_group"),
        (("--cp_uniform_preserve_ratio=1.01",), "in (0, 1]"),
        (("--cp_preserve_ratio=0",), "--cp_preserve_ratio=0"),
        (("--nb_epochs_rat=-1",), "--nb_epochs_rat=-1"),
        (("--nb_epochs_rat=inf",), "--nb_epochs_rat=inf"),
        (("--lrn_rate_init=-0.1",), "--lrn_rate_init=-0.1"),
        (("--cp_block_lrn_rate=0",), "--cp_block_lrn_rate=0"),
        (("--cp_lrn_rate_ft=nan",), "--cp_lrn_rate_ft=nan"),
        (("--warmup=1",), "--warmup=1"),
        (("--label_smoothing=1",), "--label_smoothing=1"),
        (("--ema_decay=1",), "--ema_decay=1"),
        (("--clip_norm=-1",), "--clip_norm=-1"),
        (("--loss_w_dst=inf",), "--loss_w_dst=inf"),
        (("--tempr_dst=-4",), "--tempr_dst=-4"),
        (("--tempr_dst=0",), "--tempr_dst=0"),
        (("--tempr_dst=nan",), "--tempr_dst=nan"),
        (("--loss_w_dst=-1",), "--loss_w_dst=-1"),
        (("--cp_lrn_rate_ft=0",), "--cp_lrn_rate_ft"),
        (("--cp_nb_iters_ft_ratio=1.5",), "--cp_nb_iters_ft_ratio=1.5"),
        (("--cp_block_steps=-1",), "--cp_block_steps=-1"),
        (("--save_step=0",), "--save_step=0"),
        (("--keep_checkpoints=0",), "--keep_checkpoints=0"),
        (("--enbl_dst", "--learner=full-prec"), "--dst_checkpoint"),
        (("--enbl_dst", "--dst_net=lenet"), "--dst_checkpoint"),
        (("--enbl_dst", "--dst_checkpoint=absent.pt"), "no such file"),
    ],
)
def test_wrong_training_flags_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple, words: str
) -> None:
    assert words in _refusal(capsys, tmp_path, *flags)


def test_a_teacher_of_another_shape_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\ndef build(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes + 1))\n"
    )
    torch.save({"1.weight": torch.zeros(11, 64), "1.bias": torch.zeros(11)}, tmp_path / "teacher.pt")
    flags = ("--enbl_dst", f"--dst_net={tmp_path / 'own.py'}:build", f"--dst_checkpoint={tmp_path / 'teacher.pt'}")
    message = _refusal(capsys, tmp_path / "out", *flags)
    assert "its outputs tell 11 classes apart, expected 10" in message
    assert not (tmp_path / "out" / "checkpoints").exists()
