"""A run starts with what an earlier run saved: a pruned network is trained, pruned again, measured and exported."""

import json
from pathlib import Path

import pytest
import torch

import pocketprune
import run
from learners import measuring
from nets import create_net
from pocketprune.common.steps import steps_of

COMMON = ["--resnet_size=8", "--nb_epochs=1", "--device=cpu", "--cp_nb_batches=1", "--latency_batch=1", "--threads=1"]


def _run(workdir: Path, *flags: str) -> int:
    return run.main([*COMMON, f"--workdir={workdir}", *flags])


def _refusal(capsys: pytest.CaptureFixture[str], workdir: Path, *flags: str) -> str:
    capsys.readouterr()
    assert _run(workdir, *flags) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def _report(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


def _dense() -> torch.nn.Module:
    return create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a channel-pruning run without fine-tuning."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    torch.save(_dense().state_dict(), folder / "weights.pt")
    flags = ("--learner=channel", "--cp_uniform_preserve_ratio=0.5", "--nb_epochs_rat=0")
    assert _run(folder / "pruned", *flags, f"--init_checkpoint={folder / 'weights.pt'}") == 0
    return folder / "pruned" / "pruned_model.pt"


def test_a_pruned_network_is_fine_tuned(tmp_path: Path, pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--learner=full-prec", f"--init_checkpoint={pruned}")
    assert _run(tmp_path, *flags) == 0
    assert f"Pruned network: weights of {pruned}" in capsys.readouterr().out
    report, before = _report(tmp_path), _report(pruned.parent)["pruned"]
    assert [row["name"] for row in report["stages"]] == ["start", "final"]
    for key in ("accuracy", "loss", "macs", "params"):
        assert report["start"][key] == pytest.approx(before[key], rel=1e-5)
    assert report["trained"]["loss"] < report["start"]["loss"]
    nets = [pocketprune.load(path, _dense()) for path in (pruned, tmp_path / "trained_model.pt")]
    assert steps_of(nets[0]) == steps_of(nets[1])
    assert not (tmp_path / "checkpoints" / "dense.pt").exists()

    for more in ((), (f"--init_checkpoint={pruned}",)):  # what was trained, with and without the flag of the training
        assert _run(tmp_path, "--learner=full-prec", "--exec_mode=eval", *more) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith("final")
        assert f"{report['trained']['loss']:.4f}" in line
    assert _run(tmp_path, *flags) == 0  # told again, it trains nothing
    assert _report(tmp_path)["trained"]["loss"] == report["trained"]["loss"]


def test_a_pruned_network_is_pruned_again(tmp_path: Path, pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = tmp_path / "ratio_template.list"
    assert _run(tmp_path, "--exec_mode=layers", f"--init_checkpoint={pruned}") == 0
    listed = capsys.readouterr().out
    template.write_text(template.read_text().replace("1.0", "0.75"))
    flags = ("--learner=channel", "--cp_prune_option=list", f"--cp_prune_list_file={template}")
    assert _run(tmp_path, *flags, f"--init_checkpoint={pruned}") == 0
    first, second = _report(pruned.parent), _report(tmp_path)
    assert second["dense"]["macs"] == first["pruned"]["macs"]
    assert second["dense"]["loss"] == pytest.approx(first["pruned"]["loss"], rel=1e-5)
    assert second["pruned"]["macs"] < second["dense"]["macs"]
    for layer in second["layers"]:
        assert layer["name"] in listed
        if not layer["note"]:
            assert layer["kept"] == max(1, round(0.75 * layer["channels"]))
    net = pocketprune.load(tmp_path / "pruned_model.pt", _dense())
    assert [step.kind for step in steps_of(net)] == ["channels", "channels"]
    assert pocketprune.count_params(net) == second["pruned"]["params"]
    assert _run(tmp_path, "--learner=channel", "--exec_mode=eval") == 0
    assert f"{second['pruned']['loss']:.4f}" in capsys.readouterr().out.splitlines()[-1]


def test_what_a_run_saved_is_measured_and_exported(
    tmp_path: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--learner=full-prec", f"--init_checkpoint={pruned}")
    assert _run(tmp_path, *flags, "--exec_mode=eval") == 0
    assert f"{_report(pruned.parent)['pruned']['loss']:.4f}" in capsys.readouterr().out.splitlines()[-1]
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    assert _run(tmp_path, *flags, "--exec_mode=export") == 0
    assert {"trained_model.onnx", "trained_model.xml", "trained_model.pt2"} <= {p.name for p in tmp_path.iterdir()}


def test_a_pruned_network_teaches(tmp_path: Path, pruned: Path) -> None:
    flags = ("--learner=channel", "--enbl_dst", f"--dst_checkpoint={pruned}", f"--init_checkpoint={pruned}")
    assert _run(tmp_path, *flags) == 0


def test_a_dense_run_after_a_pruned_one_leaves_nothing_of_it(tmp_path: Path, pruned: Path) -> None:
    assert _run(tmp_path, "--learner=full-prec", f"--init_checkpoint={pruned}") == 0
    assert _run(tmp_path, "--learner=full-prec") == 2
    assert _run(tmp_path, "--learner=full-prec", "--overwrite") == 0
    assert not (tmp_path / "trained_model.pt").exists()
    assert _run(tmp_path, "--learner=full-prec", "--exec_mode=eval") == 0


def test_what_a_run_would_write_over_is_no_start(
    tmp_path: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--learner=channel", f"--init_checkpoint={pruned}", "--overwrite")
    before = pruned.read_bytes()
    message = _refusal(capsys, pruned.parent, *flags)
    assert message == f"error: --init_checkpoint={pruned}: this run would write over it; give another --workdir"
    assert pruned.read_bytes() == before


def test_an_artifact_that_does_not_fit_is_told_by_its_flag(
    tmp_path: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = f"--init_checkpoint={pruned}"
    assert _refusal(capsys, tmp_path, flag, "--resnet_size=14").startswith(f"error: {flag}: dense_net (ResNet")
    content = torch.load(pruned, weights_only=True)
    content["steps"][0]["kind"] = "int8"
    torch.save(content, tmp_path / "newer.pt")
    message = _refusal(capsys, tmp_path / "out", f"--init_checkpoint={tmp_path / 'newer.pt'}")
    assert message.startswith(f"error: --init_checkpoint={tmp_path / 'newer.pt'}: written by a newer PocketPrune")
