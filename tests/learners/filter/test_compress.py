"""A run by a Distiller schedule, and the summaries and the sensitivity analysis that people of Distiller ask for."""

from pathlib import Path

import pytest

from learners import measuring
from tests.command_line import refusal, report_of, succeed
from tests.learners.filter.small import small_run

SCHEDULE = """
version: 1
pruners:
  rising: {class: L1RankedStructureParameterPruner_AGP, group_type: Filters,
           initial_sparsity: 0.25, final_sparsity: 0.5, weights: [module.0.weight]}
  once: {class: ActivationAPoZRankedFilterPruner, group_type: Filters, desired_sparsity: 0.25, weights: ['3.weight']}
extensions:
  thinner: {class: FilterRemover, thinning_func_str: remove_filters, arch: mine, dataset: mine}
lr_schedulers:
  decay: {class: ExponentialLR, gamma: 0.5}
policies:
  - pruner: {instance_name: rising}
    starting_epoch: 0
    ending_epoch: 2
  - pruner: {instance_name: once}
    epochs: [1]
  - extension: {instance_name: thinner}
    epochs: [2]
  - lr_scheduler: {instance_name: decay}
    starting_epoch: 0
    ending_epoch: 9
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


def test_a_schedule_is_carried_out_and_the_network_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(SCHEDULE)
    flags = small_run(tmp_path, f"--compress={path}", "--nb_epochs=3", "--fp_nb_batches=1")
    succeed(*flags)
    told, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert "Masked and removed agree" in told
    assert [(layer["name"], layer["kept"]) for layer in report["layers"][:3]] == [("0", 4), ("3", 9), ("6", 12)]
    assert [row["name"] for row in report["stages"]] == ["dense", "masked", "removed", "final"]
    assert "Training (filter): 2 epochs" in told
    assert "Training (filter_tune): 1 epochs" in told
    succeed(*flags, "--exec_mode=eval", "--summary=compute")
    assert f"Total MACs: {report['pruned']['macs']:,}" in capsys.readouterr().out
    succeed(*flags, "--sensitivity=channel")
    lines = (tmp_path / "out" / "sensitivity.csv").read_text().splitlines()
    assert lines[0] == "parameter,sparsity,top1,top5,loss"
    assert len(lines) == 1 + 4 * 20
    assert lines[1].startswith(f"0.weight,0.0,{report['dense']['accuracy']!r}"[:12])


@pytest.mark.parametrize(
    ("old", "new", "more", "words"),
    [
        (
            "'3.weight'",
            "'33.weight'",
            [],
            "line 6: pruners.once.weights[0]: '33.weight' given; did you mean '3.weight'",
        ),
        ("epochs: [2]", "epochs: [9]", [], "channels are removed at epoch 9, and the training has 3"),
        ("ending_epoch: 2", "ending_epoch: 4", [], "prunes until epoch 3, and channels are removed at 2"),
        ("", "", ["--fp_criterion=l2"], "--fp_criterion=l2: given beside --compress"),
        ("", "", ["--fp_policy=policy.json"], "--fp_policy=policy.json: given beside --compress"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(
    tmp_path: Path, old: str, new: str, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(SCHEDULE.replace(old, new) if old else SCHEDULE)
    assert words in refusal(capsys, *small_run(tmp_path, f"--compress={path}", "--nb_epochs=3", *more))
    assert not list((tmp_path / "out").glob("*"))
