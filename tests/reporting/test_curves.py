"""Curves read back from event files."""

from pathlib import Path

from pocketprune.reporting.curves import read_curves
from pocketprune.training.metrics import TensorBoardRecorder


def test_what_a_resumed_run_repeats_gives_way(tmp_path: Path) -> None:
    for steps, value in (((1, 2, 3), 1.0), ((2, 4), 5.0)):
        recorder = TensorBoardRecorder(tmp_path)
        for step in steps:
            recorder.record("dense/loss", value, step)
        recorder.close()
    assert read_curves(tmp_path) == {"dense/loss": [(1, 1.0), (2, 5.0), (4, 5.0)]}


def test_a_damaged_end_is_left_out(tmp_path: Path) -> None:
    recorder = TensorBoardRecorder(tmp_path)
    for step in range(3):
        recorder.record("dense/loss", 1.0, step)
    recorder.close()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-7])
    assert [step for step, _ in read_curves(tmp_path)["dense/loss"]] == [0, 1]
    path.write_bytes(b"\xff" * 100)
    assert read_curves(tmp_path) == {}
    assert read_curves(tmp_path / "missing") == {}
