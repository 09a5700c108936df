"""PocketFlow's weight-sparse learner: its three splits of the ratio, and what it refuses."""

from pathlib import Path

import pytest

from learners import measuring
from tests.command_line import refusal, report_of, succeed
from tests.learners.sparse.small import small_run


@pytest.mark.parametrize("split", ["uniform", "heurist", "optimal"])
def test_every_split_ends_at_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    flags = ("--ws_prune_ratio=0.8", "--ws_nb_rlouts=10", "--ws_nb_iters_feval=4", "--ws_mask_update_step=5")
    flags += ("--optimizer=adam", "--lrn_rate_init=0.01", "--ws_search=anneal")
    succeed(*small_run(tmp_path, f"--ws_prune_ratio_prtl={split}", *flags, learner="weight-sparse"))
    report = report_of(tmp_path / "out")
    levels = [layer["level"] for layer in report["layers"]]
    assert report["pruned"]["zeros"] == pytest.approx(0.8, abs=0.006)
    assert (len(set(levels)) == 1) is (split == "uniform")
    assert report["pruned"]["accuracy"] > 0.2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ws_prune_ratio=1"], "--ws_prune_ratio=1.0: expected a number in [0, 1)"),
        (["--ws_prune_ratio=0.995"], "--ws_prune_ratio=0.995: 0.995 given; at most 0.99 is accepted"),
        (["--ws_prune_ratio_prtl=optimum"], "did you mean 'optimal'?"),
        (["--ws_iter_ratio_beg=0.5"], "--ws_iter_ratio_end=0.5: 0.5 given; expected more than --ws_iter_ratio_beg=0.5"),
        (["--ws_mask_update_step=0"], "--ws_mask_update_step=0: expected a whole number >= 1"),
        (["--ws_search=ddpg", "--ws_nb_rlouts=5"], "5"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *small_run(tmp_path, learner="weight-sparse"), *flags)
    assert not list((tmp_path / "out").glob("*"))
