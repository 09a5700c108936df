"""The learner of discrimination-aware channel pruning as a whole, and what it refuses."""

from pathlib import Path

import pytest

from learners import measuring
from learners.channel import discriminating
from tests.command_line import refusal, report_of, succeed
from tests.learners.sparse.small import small_run

QUICK = ("--dcp_nb_stages=1", "--dcp_nb_iters_block=4", "--dcp_nb_iters_layer=1", "--nb_epochs=1")


def test_channels_are_chosen_removed_and_the_rest_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    line = small_run(tmp_path, *QUICK, learner="dis-chn-pruned", net="convolutions")
    succeed(*line)
    report = report_of(tmp_path / "out")
    assert [row["name"] for row in report["stages"]] == ["dense", "before fine-tuning", "final"]
    (layer,) = report["layers"]
    assert (layer["channels"], len(layer["kept"]), layer["preserve_ratio"]) == (8, 4, 0.5)
    assert report["pruned"]["macs"] < 0.6 * report["dense"]["macs"]
    monkeypatch.setattr(discriminating, "choose_channels", None)  # a resumed run chooses no channel again
    (tmp_path / "out" / "report.json").unlink()
    succeed(*line)
    assert report_of(tmp_path / "out")["layers"] == report["layers"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dcp_prune_ratio=1"], "--dcp_prune_ratio=1.0: expected a number in [0, 1)"),
        (["--dcp_nb_stages=2"], "--dcp_nb_stages=2: 2 given; the network has 1 such layers"),
        (["--dcp_nb_iters_layers=2"], "--dcp_nb_iters_layers: unknown; did you mean"),
        (["--dcp_lrn_rate_adam=0"], "--dcp_lrn_rate_adam=0.0: expected a number > 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *small_run(tmp_path, learner="dis-chn-pruned", net="convolutions"), *flags)
    assert not list((tmp_path / "out").glob("*"))
