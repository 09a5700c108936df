"""The command line end to end, on a small network and the embedded digits."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pocketprune
import run
from nets import create_net
from pocketprune.channel_pruning.ratio_list import parse_ratio_list
from tests.command_line import OWN_NETS, ROOT, SMALL, refusal, report_of, shell, succeed, untrained_weights

STAGE_KEYS = {"accuracy", "loss", "macs", "params", "latency_ms"}
POCKETFLOW_LIST = (
    "1.0, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 1.0, 0.25, 1.0, 0.25, 0.21875, 0.21875, "
    "0.21875, 1.0, 0.5625, 1.0, 0.546875, 0.546875, 0.546875, 1"
)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a channel-pruning run that trained its dense network itself."""
    workdir = tmp_path_factory.mktemp("runs") / "pruned"
    succeed("--learner=channel", "--cp_uniform_preserve_ratio=0.5", f"--workdir={workdir}", *SMALL)
    return workdir


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return untrained_weights(tmp_path)


def test_a_run_writes_what_it_promises(pruned: Path) -> None:
    assert {"report.json", "report.html", "pruned_model.pt", "checkpoints", "tensorboard", "ratio.list"} <= {
        path.name for path in pruned.iterdir()
    }
    assert not list(pruned.rglob(".*"))  # nothing half-written


def test_the_report_tells_the_run(pruned: Path) -> None:
    report = report_of(pruned)
    names = (report["net"], report["dataset"], report["learner"], report["device"], report["seed"])
    assert names == ("resnet", "digits", "channel", "cpu", 0)
    assert report["config"]["cp_uniform_preserve_ratio"] == 0.5
    assert report["command"] in (pruned / "report.html").read_text(encoding="utf-8")
    assert set(report["seconds"]) == {"train", "prune", "search", "finetune", "evaluate"}
    assert min(report["seconds"][clock] for clock in ("train", "prune", "finetune", "evaluate")) > 0
    for stage in ("dense", "before_finetune", "pruned"):
        assert set(report[stage]) == STAGE_KEYS
        assert 0 <= report[stage]["accuracy"] <= 1
    for layer in report["layers"]:
        assert set(layer) == {
            "name", "channels", "kept", "preserve_ratio", "error_before", "error_after", "note"
        }  # fmt: skip
        assert layer["error_after"] <= layer["error_before"]


def test_the_network_gets_smaller_by_the_ratio(pruned: Path) -> None:
    report = report_of(pruned)
    assert report["pruned"]["macs"] < 0.6 * report["dense"]["macs"]
    assert report["pruned"]["params"] < 0.6 * report["dense"]["params"]
    assert report["pruned"]["macs"] == report["before_finetune"]["macs"]
    first, *others = report["layers"]
    assert (first["channels"], first["kept"]) == (1, 1)
    assert all(layer["kept"] == layer["channels"] // 2 for layer in others)
    names = [layer["name"] for layer in report["layers"]]
    assert parse_ratio_list(pruned / "ratio.list", names) == [1.0, *[0.5] * len(others)]


def test_tensorboard_shows_training_layers_and_report(pruned: Path) -> None:
    events = EventAccumulator(str(pruned / "tensorboard")).Reload()
    tags = events.Tags()
    for label in ("dense", "finetune"):
        assert {f"{label}/loss", f"{label}/accuracy", f"{label}/learning_rate"} <= set(tags["scalars"])
    assert {"layers/kept_ratio", "layers/error"} <= set(tags["scalars"])
    assert "layers/dense_against_kept" in tags["images"]
    assert any("report" in tag for tag in tags["tensors"])


def test_a_rerun_reuses_the_dense_network_and_repeats_the_result(
    pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report_of(pruned)
    capsys.readouterr()
    succeed("--learner=channel", "--cp_uniform_preserve_ratio=0.5", f"--workdir={pruned}", *SMALL)
    printed = capsys.readouterr().out
    after = report_of(pruned)
    assert "Training (dense)" not in printed
    assert "Dense network: weights of" in printed
    assert after["seconds"]["train"] == 0
    for stage in ("dense", "before_finetune", "pruned"):
        for key in ("accuracy", "loss"):
            assert after[stage][key] == pytest.approx(before[stage][key], rel=1e-5), (stage, key)
    assert [layer["kept"] for layer in after["layers"]] == [layer["kept"] for layer in before["layers"]]


def test_the_run_ends_with_a_table(pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed("--learner=channel", "--exec_mode=eval", f"--workdir={pruned}", *SMALL)
    lines = capsys.readouterr().out.splitlines()
    report = report_of(pruned)["pruned"]
    assert lines[0].split()[:2] == ["accuracy", "loss"]
    assert lines[2].startswith("final")
    assert f"{report['accuracy']:.2%}" in lines[2]
    assert f"{report['loss']:.4f}" in lines[2]


def test_eval_of_full_precision_measures_the_dense_network(pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed("--exec_mode=eval", f"--workdir={pruned}", *SMALL)
    assert f"{report_of(pruned)['dense']['accuracy']:.2%}" in capsys.readouterr().out


def test_export_writes_files_that_load(pruned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    capsys.readouterr()
    succeed("--learner=channel", "--exec_mode=export", f"--workdir={pruned}", *SMALL)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == [
        "ONNX", "OpenVINO", "torch.export"
    ]  # fmt: skip
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pocketprune.load(pruned / "pruned_model.pt", create_net(
        "resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8)).eval()  # fmt: skip
    program = torch.export.load(str(pruned / "pruned_model.pt2"))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), net(images), rtol=1e-4, atol=1e-5)
    assert (pruned / "pruned_model.onnx").stat().st_size > 0
    assert not list(pruned.glob(".*"))
    report = report_of(pruned)
    assert {"dense", "pruned", "layers"} <= set(report)  # of the run before
    assert report["export"]["latency_batch"] == 8
    for entry in report["export"]["files"]:
        assert entry["batch"] is None  # any
        assert entry["max_difference"] < 1e-4
        assert entry["size"] >= (pruned / entry["file"]).stat().st_size
        assert min(entry["latency_ms"], entry["torch_latency_ms"]) > 0


def test_plot_draws_the_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "channel_groups.png"
    succeed("--exec_mode=layers", "--resnet_size=8", "--plot", f"--workdir={tmp_path}")
    assert f"drawn in {picture}" in capsys.readouterr().out
    dense = picture.read_bytes()
    assert dense.startswith(b"\x89PNG")
    succeed("--learner=channel", "--plot", f"--workdir={tmp_path}", "--nb_epochs_rat=0", *SMALL)
    assert picture.read_bytes() != dense


def test_plot_names_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else found(n, *a))
    message = refusal(capsys, "--exec_mode=layers", "--plot", f"--workdir={tmp_path}")
    assert message.startswith("drawing: needs matplotlib, not installed here; pip install")


def test_layers_writes_a_template_that_the_list_option_takes(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed("--exec_mode=layers", f"--workdir={tmp_path}")
    printed = capsys.readouterr().out
    assert "layer1.0.shortcut" in printed
    assert "21  layer3.2.conv2" in printed
    groups = printed.partition("channel group ")[2]
    assert "layer3.2.conv1 -> layer3.2.conv2" in groups
    assert "linear -> nothing" in groups
    assert "no: network output" in groups
    template = tmp_path / "ratio_template.list"
    succeed(
        "--learner=channel", "--cp_prune_option=list", f"--cp_prune_list_file={template}",
        f"--init_checkpoint={weights}", f"--workdir={tmp_path}", "--nb_epochs_rat=0", "--cp_nb_batches=1",
        "--latency_batch=1",
    )  # fmt: skip
    report = report_of(tmp_path)
    assert report["pruned"]["macs"] == report["dense"]["macs"]
    assert all(layer["kept"] == layer["channels"] for layer in report["layers"])


def test_pocketflows_list_for_resnet20_is_taken(tmp_path: Path, weights: Path) -> None:
    ratios = [float(entry) for entry in POCKETFLOW_LIST.split(",")]
    (tmp_path / "my.list").write_text(POCKETFLOW_LIST + "\n")
    succeed(
        "--learner=channel", "--cp_prune_option=list", f"--cp_prune_list_file={tmp_path / 'my.list'}",
        "--net=resnet", "--resnet_size=20", f"--init_checkpoint={weights}", f"--workdir={tmp_path}",
        "--nb_epochs_rat=0", "--cp_nb_batches=2", "--latency_batch=1",
    )  # fmt: skip
    layers = report_of(tmp_path)["layers"]
    wanted = [max(1, round(r * x["channels"])) for r, x in zip(ratios, layers, strict=True)]
    assert [layer["kept"] for layer in layers] == wanted
    assert len(layers) == 22


def test_the_sample_list_is_pocketflows() -> None:
    names = [f"conv{i}" for i in range(22)]
    assert parse_ratio_list(ROOT / "ratio.list", names) == [float(x) for x in POCKETFLOW_LIST.split(",")]


def test_a_persons_own_network_is_pruned(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_NETS)
    succeed(
        f"--net={tmp_path / 'own.py'}:build", "--learner=channel", "--nb_epochs=1", "--cp_nb_batches=2",
        "--cp_uniform_preserve_ratio=0.5", f"--workdir={tmp_path / 'out'}", "--latency_batch=1",
    )  # fmt: skip
    assert [layer["kept"] for layer in report_of(tmp_path / "out")["layers"]] == [1, 4]


def test_an_interrupt_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    assert run.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_is_printed(tmp_path: Path) -> None:
    ended = shell("bash", ROOT / "scripts" / "run_local.sh", "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert "--cp_uniform_preserve_ratio (0.6)" in ended.stdout


@pytest.mark.parametrize(
    "entry", ["nets/resnet_at_digits_run.py", pytest.param("resnet_at_digits", marks=pytest.mark.slow)]
)
def test_the_script_takes_pocketflows_entry(tmp_path: Path, entry: str) -> None:
    script = ROOT / "scripts" / "run_local.sh"
    ended = shell("bash", script, entry, "--exec_mode", "layers", "--resnet_size", "8", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "9  layer3.0.conv2" in ended.stdout
    assert (tmp_path / "runs" / "resnet_8_at_digits" / "ratio_template.list").exists()
