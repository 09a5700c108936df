"""The sparse learner as a whole: its rows, its files, resumption, and what it refuses."""

from pathlib import Path

import pytest
import torch

from config import Config
from learners import measuring
from learners.sparse.policies import asked_policy
from pocketprune.common.files import read_tensors
from tests.command_line import refusal, report_of, succeed
from tests.learners.sparse.small import small_run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


def zeros(folder: Path) -> list[int]:
    tensors = read_tensors(folder / "out" / "pruned_model.pt")["tensors"]
    return [int((tensors[f"{layer}.weight"] == 0).sum()) for layer in (1, 3, 5)]


def test_at_once_in_closed_form_then_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = small_run(tmp_path, "--sp_level=0.9", "--optimizer=adam", "--lrn_rate_init=0.01", "--nb_epochs=4")
    succeed(*flags)
    report, told = report_of(tmp_path / "out"), capsys.readouterr().out
    assert [row["name"] for row in report["stages"]] == ["dense", "before fine-tuning", "final"]
    assert zeros(tmp_path) == [2304, 720, 180]
    assert report["pruned"]["zeros"] == 0.9
    assert report["pruned"]["accuracy"] > report["before_finetune"]["accuracy"] > 0.3
    assert report["pruned"]["packed_bytes"] < 0.2 * report["dense"]["packed_bytes"]
    assert [layer["masked"] for layer in report["layers"]] == [2304, 720, 180]
    assert "3,204  0.900" in told
    assert "90.00%" in told
    succeed(*flags, "--exec_mode=eval")
    assert f"{report['pruned']['loss']:.4f}" in capsys.readouterr().out
    assert "--sp_level: 0.9 saved, 0.8 now" in refusal(capsys, *flags, "--sp_level=0.8")


def test_by_a_schedule_the_last_epoch_has_the_target(tmp_path: Path) -> None:
    succeed(*small_run(tmp_path, "--sp_schedule=agp", "--sp_criterion=magnitude", "--sp_ranking=global"))
    report = report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["dense", "final"]
    assert sum(zeros(tmp_path)) == 1780
    assert zeros(tmp_path) != [1280, 400, 100]


def test_admm_ends_with_hard_masks_in_a_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(*small_run(tmp_path, "--sp_method=admm", "--sp_pattern=2:4", "--sp_admm_rounds=3"))
    assert "dual residual" in capsys.readouterr().out
    weight = read_tensors(tmp_path / "out" / "pruned_model.pt")["tensors"]["1.weight"]
    assert (weight.view(40, 16, 4) == 0).sum(2).unique().tolist() == [2]


def test_a_lottery_rewinds_and_has_a_control(tmp_path: Path) -> None:
    flags = ("--sp_method=lottery", "--sp_rounds=2", "--sp_level=0.75", "--sp_random_ticket", "--sp_rewind_epoch=1")
    succeed(*small_run(tmp_path, *flags))
    rounds = report_of(tmp_path / "out")["rounds"]
    assert [round(row["level"], 6) for row in rounds] == [0, 0.5, 0.75]
    assert 0 <= rounds[-1]["random_accuracy"] <= 1
    assert zeros(tmp_path) == [1920, 600, 150]
    first = torch.load(tmp_path / "out" / "pruned_model.pt", weights_only=True)["tensors"]
    (tmp_path / "out" / "checkpoints").rename(tmp_path / "kept")
    succeed(*small_run(tmp_path, *flags))  # from the beginning
    again = torch.load(tmp_path / "out" / "pruned_model.pt", weights_only=True)["tensors"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_splicing_lets_weights_come_back_for_three_quarters_of_the_epochs(tmp_path: Path) -> None:
    splicing = ("--sp_ranking=splicing", "--sp_criterion=magnitude", "--sp_mask=live", "--sp_sensitivity=0.3")
    succeed(*small_run(tmp_path, *splicing))
    shares = [count / weights for count, weights in zip(zeros(tmp_path), (2560, 800, 200), strict=True)]
    assert all(0.4 < share < 0.9 for share in shares)  # below the mean magnitude and a third of its deviation
    (rule,) = asked_policy(Config.from_flags(splicing), 8).rules
    assert [rule.schedule.changes(epoch) for epoch in range(8)] == [True] * 7 + [False]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sp_level=1"], "--sp_level=1.0: expected a number in [0, 1)"),
        (["--sp_method=levels"], "--sp_method=levels: expected one of level, admm, lottery; did you mean 'level'?"),
        (["--sp_pattern=3:2"], "--sp_pattern=3:2: '3:2' given; n:m with n below m is accepted"),
        (["--sp_pattern=4 by 1"], "--sp_pattern=4 by 1: '4 by 1' given; accepted: unstructured, 4x1, 2:4"),
        (["--sp_pattern=2:7"], "--sp_pattern=2:7: 2:7 given, and layer '1' does not fit: it has 64 inputs, which 7"),
        (["--sp_pattern=2:4", "--sp_level=0.75"], "--sp_level=0.75: 0.75 given; 2:4 masks at most 0.5"),
        (["--sp_criterion=magnitud"], "did you mean 'magnitude'?"),
        (["--sp_ranking=sensitivity"], "--sp_ranking=sensitivity: 'sensitivity' given; it is a threshold for the"),
        (["--sp_ranking=splicing", "--sp_criterion=magnitude"], "--sp_mask=hard: 'hard' given; splicing needs 'live'"),
        (["--sp_splice_low=2"], "--sp_splice_low=2.0: 2 given; it must not be above high, 1.1"),
        (["--sp_schedule=agpp"], "did you mean 'agp'?"),
        (["--sp_schedule=agp", "--sp_ramp_epochs=9"], "--sp_ramp_epochs=9: the level is 0.2"),
        (["--sp_level_init=0.6", "--sp_schedule=agp"], "--sp_level_init=0.6: 0.6 given; it must not be above"),
        (["--sp_ignore=conv9"], "--sp_ignore=conv9: 'conv9' given"),
        (["--sp_ignore=Linear"], "--sp_ignore=Linear: *: no layer is left for it"),
        (["--sp_method=admm", "--sp_admm_rounds=0"], "--sp_admm_rounds=0: expected a whole number >= 1"),
        (["--sp_method=admm", "--sp_rho=0"], "--sp_rho=0.0: expected a number > 0"),
        (["--sp_method=lottery", "--sp_rewind_epoch=4"], "--sp_rewind_epoch=4: 4 given, and a round has 3 epochs"),
        (["--sp_method=lottery", "--nb_epochs_rat=0"], "--nb_epochs_rat=0: expected a number > 0 with --sp_method lot"),
        (["--sp_method=lottery", "--init_checkpoint=a.pt"], "--init_checkpoint=a.pt: tickets return to the weights"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *small_run(tmp_path), *flags)
    assert not list((tmp_path / "out").glob("*"))
