"""Quantisation on the command line: alone, after another learner, exported, refused."""

from pathlib import Path

import pytest

from learners import measuring
from tests.command_line import refusal, report_of, succeed

NETS = """
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, num_classes))
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


def _flags(folder: Path, *more: str) -> list[str]:
    (folder / "nets.py").write_text(NETS)
    own = [f"--net={folder / 'nets.py'}:build", f"--workdir={folder / 'out'}", "--device=cpu", "--threads=1"]
    return [*own, "--nb_epochs=2", "--latency_batch=2", "--lrn_rate_init=0.05", *more]


def test_a_network_is_calibrated_trained_measured_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = _flags(tmp_path, "--learner=quant", "--quant_epochs=1", "--quant_max_drop=5")
    succeed(*flags)
    told, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["float", "calibrated", "final"]
    assert (report["dense"]["bits"], report["quantized"]["bits"]) == (32, 8)
    assert report["quantized"]["file_mb"] < report["dense"]["file_mb"]
    assert report["calibrated"]["accuracy"] > report["dense"]["accuracy"] - 0.03
    assert report["quantization"] == {"layers": {"0": 8, "3": 8, "7": 8}, "in_float": []}
    assert "Quantisation loses" in told
    assert (tmp_path / "out" / "quant_sensitivity.csv").read_text().startswith("layer,bits,params,divergence")
    succeed(*flags, "--exec_mode=eval")
    assert f"{report['quantized']['accuracy']:.2%}" in capsys.readouterr().out


@pytest.mark.slow
def test_files_for_other_runtimes_are_as_good_there(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    flags = _flags(tmp_path, "--learner=quant")
    succeed(*flags)
    report = report_of(tmp_path / "out")
    succeed(*flags, "--exec_mode=export")
    rows = report_of(tmp_path / "out")["integer_export"]
    assert [(row["runtime"], row["network"]) for row in rows] == [
        ("ONNX", "int8"), ("ONNX", "float"), ("OpenVINO", "int8"), ("OpenVINO", "float")
    ]  # fmt: skip
    assert all(
        abs(row["accuracy"] - report["quantized"]["accuracy"]) < 0.02 for row in rows if row["network"] == "int8"
    )


def test_any_learner_can_be_followed_by_it_and_none_starts_with_integers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _flags(tmp_path, "--learner=channel", "--nb_epochs_rat=0", "--cp_nb_batches=2")
    succeed(*flags, "--enbl_quant")
    report = report_of(tmp_path / "out")
    titles = ["dense", "before fine-tuning", "float", "calibrated", "final"]
    assert [row["name"] for row in report["stages"]] == titles
    assert report["quantized"]["macs"] == report["before_finetune"]["macs"] < report["dense"]["macs"]
    assert [layer["name"] for layer in report["layers"]] == ["0", "3"]
    made = tmp_path / "out" / "quantized_model.pt"
    elsewhere = [*flags, f"--workdir={tmp_path / 'other'}", f"--init_checkpoint={made}"]
    assert refusal(capsys, *elsewhere) == (
        f"--init_checkpoint={made}: a network in integers; a learner starts with one in floats"
    )
    assert refusal(capsys, *flags, "--enbl_quant", "--quant_weight_bits=8", "--quant_nb_images=5") == (
        f"--workdir={tmp_path / 'out'}: holds a run of --learner=quant_after_channel with other flags: "
        "--quant_nb_images: 512 saved, 5 now (--overwrite starts over, another --workdir keeps both)"
    )


def test_bad_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = _flags(tmp_path, "--learner=quant")
    assert refusal(capsys, *flags, "--quant_weight_bits=1") == (
        "--quant_weight_bits=1: expected a whole number in [2, 8]"
    )
    assert refusal(capsys, *flags, "--exec_mode=eval").endswith("quantise first (--exec_mode train)")
    assert refusal(capsys, *flags, "--learner=uniform", "--uql_activation_bits=16") == (
        "--uql_activation_bits=16: expected a whole number in [2, 8], or 32"
    )


@pytest.mark.parametrize("learner", ["uniform", "non-uniform"])
def test_few_bits_are_searched_trained_and_measured(
    learner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = {"uniform": "uql_", "non-uniform": "nuql_"}[learner]
    own = ["search=dp", "nb_rlouts=12", "equivalent_bits=5", "quant_epochs=1", "quantize_all_layers"]
    succeed(*_flags(tmp_path, f"--learner={learner}", *(f"--{prefix}{flag}" for flag in own)))
    report = report_of(tmp_path / "out")
    bits = report["quantization"]["layers"]
    assert set(bits) == {"0", "3", "7"}
    assert 4.9 < report["quantized"]["bits"] < 5.1
    assert report["quantized"]["packed_mb"] < report["quantized"]["file_mb"]
    assert report["quantized"]["accuracy"] > 0.4
    assert "divergence" in capsys.readouterr().out


@pytest.mark.slow
def test_quantisers_in_the_network_while_it_is_masked_prepare_it_for_few_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _flags(tmp_path, "--learner=filter", "--fp_level=0.25", "--enbl_quant", "--quant_weight_bits=3")
    found = {}
    for option in ("--quant_while_masking", "--noquant_while_masking"):
        succeed(*flags, option, f"--workdir={tmp_path / option}")
        found[option] = report_of(tmp_path / option)
        assert [row["name"] for row in found[option]["stages"]] == [
            "dense", "masked", "removed", "float", "calibrated", "final"
        ]  # fmt: skip
    prepared, plain = found.values()
    assert prepared["float"]["macs"] == plain["float"]["macs"] < prepared["dense"]["macs"]
    lost = [row["float"]["accuracy"] - row["calibrated"]["accuracy"] for row in (prepared, plain)]
    assert lost[0] < lost[1] - 0.02
    assert "--quant_while_masking: True saved, False now" in refusal(
        capsys, *flags, "--noquant_while_masking", f"--workdir={tmp_path / '--quant_while_masking'}"
    )


def test_reinforcement_learning_finds_bits_under_their_budget(tmp_path: Path) -> None:
    own = ["search=ddpg", "nb_rlouts=8", "equivalent_bits=5", "quant_epochs=0", "quantize_all_layers"]
    succeed(*_flags(tmp_path, "--learner=uniform", *(f"--uql_{flag}" for flag in own)))
    report, found = report_of(tmp_path / "out"), (tmp_path / "out" / "bits_search.csv").read_text().splitlines()
    assert len(found) == 1 + 8
    assert set(report["quantization"]["layers"]) == {"0", "3", "7"}
    assert report["quantized"]["bits"] <= 5
    succeed(
        *_flags(tmp_path, "--learner=uniform", *(f"--uql_{flag}" for flag in own))
    )  # it goes on, and searches no more
    assert (tmp_path / "out" / "bits_search.csv").read_text().splitlines() == found
