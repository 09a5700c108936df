"""A run of the filter learner, killed with kill -9 in each phase, ends with the same bits."""

import json
import time
from pathlib import Path

import torch

from pocketprune.common.files import read_tensors
from tests.learners.filter.small import small_run
from tests.training.launch import start

FLAGS = (
    "--nb_epochs=4", "--save_step=3", "--fp_criterion=taylor", "--fp_nb_batches=2", "--fp_schedule=agp",
    "--fp_tune_share=0.25", "--fp_regulariser=group_lasso", "--ema_decay=0.5", "--summ_step=4", "--fp_refit=removal",
    "--fp_ranking=learned", "--fp_share_of=macs", "--fp_generations=4",
)  # fmt: skip
PATIENCE = 60  # seconds for one life


def _life(folder: Path, kill_at: str = "") -> int:
    """Run the command; kill it after the next checkpoint of a phase. Its exit status."""
    (folder / "flags.json").write_text(json.dumps(small_run(folder, *FLAGS)))
    checkpoints = folder / "out" / "checkpoints"
    seen = set(checkpoints.glob(f"{kill_at}-*.pt"))
    process = start("command", folder / "flags.json", {}, folder / "output")
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end:
        if kill_at and set(checkpoints.glob(f"{kill_at}-*.pt")) - seen:
            process.kill()
        process.join(0.005)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), (folder / "output").read_text()
    return process.exitcode


def _result(folder: Path) -> tuple[dict, list]:
    report = json.loads((folder / "out" / "report.json").read_text())
    rows = [(row["name"], row["accuracy"], row["loss"]) for row in report["stages"]]
    return read_tensors(folder / "out" / "pruned_model.pt"), [rows, report["layers"]]


def test_killed_in_every_phase_the_run_ends_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert _life(whole) == 0
    assert [_life(killed, phase) for phase in ("filter", "filter_tune")] == [-9] * 2
    assert _life(killed) == 0
    (model, told), (expected, expected_told) = _result(killed), _result(whole)
    assert told == expected_told
    assert model["steps"] == expected["steps"]
    assert all(torch.equal(tensor, expected["tensors"][name]) for name, tensor in model["tensors"].items())
    assert not list(killed.rglob(".*.tmp"))
