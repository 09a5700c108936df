"""Real runs, killed with kill -9 while training, pruning, tuning and fine-tuning: the result is the same to the bit."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from pocketprune.common.files import read_tensors
from tests.training.launch import start

FLAGS = [
    "--learner=channel", "--resnet_size=8", "--nb_epochs=2", "--device=cpu", "--cp_nb_batches=2", "--threads=1",
    "--latency_batch=1", "--save_step=3", "--cp_list_group=5", "--cp_finetune", "--cp_nb_iters_ft_ratio=0.5",
    "--cp_uniform_preserve_ratio=0.5", "--enbl_dst", "--cp_bn_reestimate", "--ema_decay=0.5", "--summ_step=4",
    "--cp_recover_epochs=0.5",
]  # fmt: skip
PHASES = ("dense", "prune", "tune0", "prune", "recover", "finetune")
PATIENCE = 120  # seconds for one life


def _life(workdir: Path, kill_at: tuple[str, float] | None) -> int:
    """Run the command; kill it `delay` seconds after the next checkpoint of a phase. Its exit status."""
    (workdir.parent / f"{workdir.name}.flags").write_text(json.dumps([*FLAGS, f"--workdir={workdir}"]))
    folder = workdir / "checkpoints"
    output = workdir.parent / f"{workdir.name}.output"
    process = start("command", workdir.parent / f"{workdir.name}.flags", {}, output)
    seen = set(_names(folder, kill_at[0])) if kill_at else set()
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end:
        if kill_at and set(_names(folder, kill_at[0])) - seen:
            time.sleep(kill_at[1])
            process.kill()
        process.join(0.005)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), output.read_text()
    return process.exitcode


def _names(folder: Path, phase: str) -> list[str]:
    return [path.name for path in folder.glob(f"{phase}-*.pt")]


def _killed(workdir: Path, kills: list[tuple[str, float]]) -> list[str]:
    """Live through these kills, as far as their phases still come, and then to the end; in which phases they were."""
    phases = []
    for kill in kills:
        if _life(workdir, kill) == 0:
            break
        phases.append(kill[0])
        for path in (workdir / "checkpoints").glob("*.pt"):  # nothing broken at its place
            read_tensors(path)
    assert _life(workdir, None) == 0
    return phases


def _result(workdir: Path) -> tuple[dict, list]:
    report = json.loads((workdir / "report.json").read_text())
    figures = [(row["name"], row["accuracy"], row["loss"]) for row in report["stages"]]
    return read_tensors(workdir / "pruned_model.pt"), [figures, report["layers"]]


def _same(first: object, second: object) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("kill") / "whole"
    assert _life(workdir, None) == 0
    return workdir


def _check(workdir: Path, uninterrupted: Path) -> None:
    (model, told), (expected, expected_told) = _result(workdir), _result(uninterrupted)
    assert _same(model, expected)
    assert told == expected_told
    assert not list(workdir.rglob(".*.tmp"))


def test_killed_in_every_phase_the_run_ends_the_same(tmp_path: Path, uninterrupted: Path) -> None:
    kills = [(phase, 0.01) for phase in ("dense", "prune", "tune0", "finetune")]
    assert len(_killed(tmp_path / "run", kills)) == 4
    _check(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments_the_runs_end_the_same(tmp_path: Path, uninterrupted: Path) -> None:
    generator, killed = random.Random(0), Counter()
    for number in range(12):
        phases = sorted(generator.choices(range(len(PHASES)), k=4))
        kills = [(PHASES[phase], generator.uniform(0, 0.15)) for phase in phases]
        killed.update(_killed(tmp_path / str(number), kills))
        _check(tmp_path / str(number), uninterrupted)
        if killed.total() >= 24:
            break
    assert killed.total() >= 20
    assert min(killed[phase] for phase in ("dense", "prune", "tune0", "finetune")) >= 2, killed
