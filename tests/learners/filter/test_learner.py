"""The filter learner as a whole: its rows, its files, and what it refuses."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

import run
from learners import measuring
from learners.filter import level
from tests.command_line import refusal, report_of, succeed
from tests.learners.filter.small import small_run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


def test_a_masked_network_is_trained_and_then_really_smaller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = small_run(tmp_path, "--fp_level=0.5", "--fp_schedule=linear", "--nb_epochs=3", "--enbl_dst")
    succeed(*flags)
    told, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["dense", "masked", "removed", "final"]
    assert "Masked and removed agree" in told
    assert report["removed"]["accuracy"] == report["masked"]["accuracy"]
    assert report["removed"]["loss"] == pytest.approx(report["masked"]["loss"], rel=1e-4)
    assert report["masked"]["macs"] == report["dense"]["macs"] > 2 * report["removed"]["macs"]
    assert report["pruned"] == report["removed"]
    assert [(layer["name"], layer["channels"], layer["kept"]) for layer in report["layers"]] == [
        ("0", 8, 4), ("3", 12, 6), ("6", 12, 6), ("8", 10, 10)
    ]  # fmt: skip
    assert report["layers"][-1]["note"] == "network output"
    succeed(*flags, "--exec_mode=eval")
    assert f"{report['pruned']['loss']:.4f}" in capsys.readouterr().out
    _goes_on_from(tmp_path, report)


def _goes_on_from(folder: Path, report: dict[str, Any]) -> None:
    """Another learner starts with the file that the run has left."""
    own = small_run(folder)[1]
    more = [
        "--nb_epochs_rat=0",
        "--cp_nb_batches=1",
        "--latency_batch=1",
        "--device=cpu",
        f"--workdir={folder / 'two'}",
    ]
    succeed("--learner=channel", own, f"--init_checkpoint={folder / 'out' / 'pruned_model.pt'}", *more)
    again = report_of(folder / "two")
    assert again["dense"]["loss"] == pytest.approx(report["pruned"]["loss"], rel=1e-6)
    assert again["pruned"]["macs"] < report["pruned"]["macs"]


def test_removed_at_once_a_refit_brings_accuracy_back_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = ("--nb_epochs=8", "--nb_epochs_rat=0.25", "--optimizer=adam", "--lrn_rate_init=0.002")
    succeed(*small_run(tmp_path, "--fp_refit=removal", "--fp_tune_share=1", *training))
    report = report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["dense", "masked", "removed", "refitted", "final"]
    assert report["refitted"]["loss"] < report["removed"]["loss"]
    assert report["pruned"]["loss"] < report["refitted"]["loss"]
    assert "Refit kept" in capsys.readouterr().out


def test_a_policy_in_a_file_says_it_for_each_part(tmp_path: Path) -> None:
    rules = [
        {"groups": ["0"], "channels": 0.25, "schedule": "one_shot"},
        {"groups": ["[3-6]"], "criterion": "taylor", "channels": 0.5, "schedule": {"name": "agp", "unit": "step"}},
    ]
    (tmp_path / "policy.json").write_text(json.dumps({"rules": rules, "multiple": 2, "mask": "hard"}))
    succeed(*small_run(tmp_path, f"--fp_policy={tmp_path / 'policy.json'}", "--fp_nb_batches=1", "--fp_refit=steps"))
    assert [layer["kept"] for layer in report_of(tmp_path / "out")["layers"]] == [6, 6, 6, 10]


def test_a_yaml_policy_reads_like_a_json_one(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "policy.yaml").write_text("channels: 0.25\nschedule: one_shot\nignore: ['6']\n")
    succeed(*small_run(tmp_path, f"--fp_policy={tmp_path / 'policy.yaml'}", "--nb_epochs_rat=0"))
    assert [layer["kept"] for layer in report_of(tmp_path / "out")["layers"]] == [6, 9, 12, 10]


def test_without_pyyaml_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "yaml" else find(name, *rest))
    (tmp_path / "policy.yml").write_text("channels: 0.25\n")
    line = refusal(capsys, *small_run(tmp_path, f"--fp_policy={tmp_path / 'policy.yml'}"))
    assert line.startswith(f"--fp_policy={tmp_path / 'policy.yml'}: needs pyyaml")
    assert "pocketprune[policies]" in line


def test_the_layers_command_writes_a_policy_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(*small_run(tmp_path, "--exec_mode=layers"))
    told = capsys.readouterr().out
    assert "network output" in told
    path = tmp_path / "out" / "policy_template.json"
    assert str(path) in told
    policy = json.loads(path.read_text())
    assert policy["rules"][0]["groups"] == ["0", "3", "6"]
    succeed(*small_run(tmp_path, f"--fp_policy={path}", "--nb_epochs=1"))
    assert [layer["kept"] for layer in report_of(tmp_path / "out")["layers"]] == [4, 6, 6, 10]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fp_level=1"], "--fp_level=1.0: expected a number in [0, 1)"),
        (["--fp_level=-0.1"], "--fp_level=-0.1: expected"),
        (["--fp_level_init=0.6"], "--fp_level_init=0.6: 0.6 given; it must not be above the target, 0.5"),
        (["--fp_ramp_epochs=0"], "--fp_ramp_epochs=0: expected a whole number >= 1"),
        (["--fp_ramp_epochs=9"], "--fp_ramp_epochs=9: the level is 0.083 after 2 epochs"),
        (["--fp_warmup_epochs=2"], "--fp_ramp_epochs: the level is 0 after 2 epochs"),
        (["--fp_freeze_epoch=0"], "--fp_ramp_epochs: the level is 0 after 2 epochs"),
        (["--fp_criterion=tailor"], "did you mean 'taylor'?"),
        (["--fp_schedule=exponentail"], "did you mean 'exponential'?"),
        (["--fp_ignore=nothing"], "--fp_ignore=nothing: 'nothing' given"),
        (["--fp_ignore=Conv2d"], "--fp_ignore=Conv2d: *: all of its groups are ignored"),
        (["--fp_criterion=bn_scale"], "--fp_criterion=bn_scale: 'bn_scale' needs batch norms after the channels, and"),
        (["--fp_regulariser=bn_scale"], "--fp_regulariser=bn_scale: 'bn_scale' needs batch norms, and group '6'"),
        (["--fp_criterion=apoz"], "--fp_criterion=apoz: 'apoz' needs rectifiers after the channels, and group '6'"),
        (["--fp_share_of=macs", "--fp_level=0.999"], "--fp_level=0.999: 0.999 given; 0 to 0.9"),
        (["--fp_policy=none.json"], "--fp_policy=none.json: no such file"),
        (["--fp_policy=policy.txt"], "--fp_policy=policy.txt: a file's name that ends in .json"),
        (["--fp_policy=none.json", "--fp_criterion=l2"], "--fp_criterion=l2: given beside --fp_policy"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *small_run(tmp_path), *flags)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"channels": 0.5, "macs": 0.5}, "rules: channels and macs given; one target is accepted"),
        ({"groups": ["layer9*"]}, "groups: 'layer9*' given"),
        ({"groups": ["3"], "ignore": ["3"]}, "ignore: '3' is asked for and ignored"),
        ({"rules": [{"groups": ["3"]}, {"groups": ["3"]}]}, "groups: 3: earlier rules take all of its groups"),
        ({"criterion": "l3"}, "criterion: 'l3' given"),
        ({"schedule": {"steps": 0}}, "steps: 0 given"),
        ({"schedule": {"name": ["agp"]}}, "schedule: ['agp'] given; expected one of one_shot"),
        ({"shedule": "agp"}, "'shedule' given; did you mean 'schedule'?"),
        ({"schedule": {"steps": 5}}, "steps: the level is"),
        ([], "list given; names"),
        ("{", "cannot be read"),
    ],
)
def test_a_policy_that_cannot_be_carried_out_is_one_line(
    tmp_path: Path, policy: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policy if isinstance(policy, str) else json.dumps(policy))
    line = refusal(capsys, *small_run(tmp_path, f"--fp_policy={path}"))
    assert line.startswith(f"--fp_policy={path}: ")
    assert words in line
    assert not list((tmp_path / "out").glob("*"))


def test_another_policy_in_the_same_workdir_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(*small_run(tmp_path, "--nb_epochs=1"))
    assert "--fp_level: 0.5 saved, 0.25 now" in refusal(
        capsys, *small_run(tmp_path, "--nb_epochs=1", "--fp_level=0.25")
    )
    assert run.main(small_run(tmp_path, "--nb_epochs=1", "--cp_uniform_preserve_ratio=0.3")) == 0


def test_the_largest_level_that_keeps_the_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = small_run(
        tmp_path, "--fp_level=0.9", "--fp_schedule=one_shot", "--fp_max_accuracy_drop=0.95", "--nb_epochs=1"
    )
    succeed(*flags)
    told, report = capsys.readouterr().out, report_of(tmp_path / "out")
    levels = [row["level"] for row in report["levels"]]
    assert levels == [0.9, 29 / 32], "one channel stays in each of three groups"
    best = max(row["level"] for row in report["levels"] if row["kept"])
    assert [layer["kept"] for layer in report["layers"][:3]] == [math.ceil(n * (1 - best) - 1e-9) for n in (8, 12, 12)]
    assert f"Level {levels[-1]:.3f}: " in told
    succeed(*flags)
    assert report_of(tmp_path / "out")["pruned"]["loss"] == report["pruned"]["loss"]


def test_where_no_level_keeps_the_accuracy_nothing_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0])  # the dense network's, before all others
    monkeypatch.setattr(level, "_accuracy", lambda run, net: next(scores, 0.0))
    succeed(*small_run(tmp_path, "--fp_level=0.05", "--fp_max_accuracy_drop=0.01", "--nb_epochs=1", "--fp_bn_images=0"))
    assert "No level keeps the accuracy: nothing is removed" in capsys.readouterr().out
    report = report_of(tmp_path / "out")
    assert [layer["kept"] for layer in report["layers"]] == [8, 12, 12, 10]
    assert report["pruned"]["loss"] == report["dense"]["loss"]
    line = refusal(capsys, *small_run(tmp_path, "--fp_max_accuracy_drop=0.01", "--fp_tune_share=1"))
    assert line.startswith("--fp_max_accuracy_drop=0.01: 0.01 given without a training with masks")
