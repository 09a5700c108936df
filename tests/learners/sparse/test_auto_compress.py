"""The AutoCompress learner as a whole, and what it refuses."""

from pathlib import Path

import pytest

from learners import measuring
from tests.command_line import refusal, report_of, succeed
from tests.learners.sparse.small import small_run


@pytest.mark.slow
def test_rounds_thin_the_network_and_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    flags = ("--ac_rounds=2", "--ac_nb_rlouts=6", "--cp_nb_batches=4", "--sp_admm_rounds=2", "--ac_preserve_ratio=0.6")
    line = small_run(tmp_path, *flags, learner="auto-compress", net="convolutions")
    succeed(*line)
    report = report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["dense", "before fine-tuning", "final"]
    assert report["pruned"]["macs"] == pytest.approx(0.6 * report["dense"]["macs"], rel=0.1)
    assert len(report["rounds"]) == 2
    succeed(*line, "--exec_mode=eval")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ac_rounds=0"], "--ac_rounds=0: expected a whole number >= 1"),
        (["--ac_preserve_ratio=0"], "--ac_preserve_ratio=0.0: expected a number in (0, 1]"),
        (["--ac_search=aneal"], "did you mean 'anneal'?"),
        (["--ac_selection=l1"], "--ac_selection=l1: expected one of magnitude, lasso, obs"),
        (["--nb_epochs_rat=0"], "--nb_epochs_rat=0: expected a number > 0 with --learner auto-compress"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *small_run(tmp_path, learner="auto-compress"), *flags)
    assert not list((tmp_path / "out").glob("*"))
