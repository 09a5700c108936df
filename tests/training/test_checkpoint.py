import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.training.checkpoint import (
    Checkpoints,
    compare_configs,
    random_states,
    seed_everything,
    set_random_states,
)
from tests.common.hostile import inside_itself, odd_tensors


def test_round_trip_and_only_the_last_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15):
        checkpoints.save(
            {"w": torch.full((3,), float(step)), "extra": {"phase": "train", "reports": [1.5, None]}}, step
        )
    assert checkpoints.steps() == [10, 15]
    found = checkpoints.latest()
    assert (found.step, found.state["extra"]) == (15, {"phase": "train", "reports": [1.5, None]})
    assert torch.equal(found.state["w"], torch.full((3,), 15.0))


def test_phases_share_a_directory(tmp_path):
    first, second = Checkpoints(tmp_path, name="train"), Checkpoints(tmp_path, name="train-2")
    first.save({"phase": 1}, 3)
    second.save({"phase": 2}, 1)
    assert (first.latest().state, second.latest().state) == ({"phase": 1}, {"phase": 2})
    assert Checkpoints(tmp_path / "none").latest() is None


def test_checkpoints_ahead_of_the_saved_step_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (10, 20, 30, 15):  # back to 10 because 20 and 30 could not be read, say
        checkpoints.save({"step": step}, step)
    assert checkpoints.steps() == [10, 15]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_damaged_newest_falls_back_with_a_warning(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        path = checkpoints.save({"w": torch.full((500,), float(step))}, step)
    data = bytearray(path.read_bytes())
    middle = data.index(np.full(500, 2, np.float32).tobytes()) + 40
    damaged = {
        "truncate": data[:-200],
        "empty": b"",
        "text": b"not a checkpoint",
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[damage]
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="train-00000002.pt.*trying the checkpoint before"):
        assert checkpoints.latest().step == 1


def test_no_readable_checkpoint_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({}, 1).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(UserError, match="none of the 1 checkpoints"),
    ):
        checkpoints.latest()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_before_the_renaming_leaves_what_was_there(tmp_path, monkeypatch, call):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save({"step": 1}, 1)

    def crash(*_args):
        raise KeyboardInterrupt  # stands for the power failing: no handler of ours runs

    monkeypatch.setattr(os, call, crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save({"step": 2}, 2)
    monkeypatch.undo()
    assert checkpoints.latest().state == {"step": 1}
    checkpoints.save({"step": 2}, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000002.pt"]


def test_full_disk_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1}, 1)

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*train-00000002.pt: No space.*last good .*train-00000001.pt"):
        checkpoints.save({"step": 2}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000001.pt"]


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*/a.json"):
        write_atomically(tmp_path / "file" / "a.json", b"{}")
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        Checkpoints(tmp_path / "file").save({}, 1)


def test_what_needs_code_to_load_is_neither_saved_nor_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a float64"):
        checkpoints.save({"a": [1.0, np.float64(2)]}, 1)
    for content, why in (({"path": Path("x")}, "holds code"), ([1], "holds a list and not a checkpoint")):
        torch.save(content, checkpoints.path(1))
        with pytest.warns(UserWarning, match=why), pytest.raises(UserError, match="none of the 1"):
            checkpoints.latest()
    with pytest.raises(UserError, match="keep: 0 given"):
        Checkpoints(tmp_path, keep=0)


def test_random_states_come_back(tmp_path):
    def draw():
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.rand(),
            np.random.randn(),
            torch.rand(2).tolist(),
        )

    seed_everything(3)
    draw()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"random": random_states()}, 1)
    expected = draw()
    seed_everything(4)
    set_random_states(checkpoints.latest().state["random"])
    assert draw() == expected
    seed_everything(3)
    again = draw()
    seed_everything(3)
    assert draw() == again


def test_compare_configs_lists_what_differs():
    saved = {"batch_size": 128, "ratios": [1, 2], "gone": 1, "workdir": "a", "path": "x/y"}
    now = {"batch_size": 64, "ratios": (1, 2), "new": True, "workdir": "b", "path": Path("x/y")}
    assert compare_configs(saved, now, ignore=("workdir",)) == [
        "batch_size: 128 saved, 64 now",
        "gone: 1 saved, (absent) now",
        "new: (absent) saved, True now",
    ]
    assert compare_configs({"new": 1}, {"new": 2}, prefix="--") == ["--new: 1 saved, 2 now"]
    assert compare_configs(saved, saved) == []


@pytest.mark.parametrize("kind", ["quantised", "meta", "sparse"])
def test_odd_tensors_are_named(tmp_path, kind):
    odd = next(tensor for name, tensor in odd_tensors((2,)).items() if name.startswith(kind))
    with pytest.raises(TypeError, match=rf"state\['net'\]\['w'\] is a {kind} tensor"):
        Checkpoints(tmp_path).save({"net": {"w": odd}}, 1)
    torch.save({"net": {"w": odd}}, Checkpoints(tmp_path).path(1))
    with pytest.warns(UserWarning, match=kind), pytest.raises(UserError, match="none of the 1 checkpoints"):
        Checkpoints(tmp_path).latest()


def test_a_state_that_contains_itself_is_neither_saved_nor_read(tmp_path):
    with pytest.raises(UserError, match="contains itself"):
        Checkpoints(tmp_path).save(inside_itself(), 1)
    torch.save(inside_itself(), Checkpoints(tmp_path).path(1))
    with pytest.warns(UserWarning, match="contains itself"), pytest.raises(UserError, match="none of the 1"):
        Checkpoints(tmp_path).latest()


def test_a_state_that_another_program_wrote_is_told_in_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"other": 1}, 1)
    found = checkpoints.latest()
    with (
        pytest.raises(UserError, match=r"train-00000001.pt: damaged \(KeyError: 'ratios'\)") as error,
        found.understood(),
    ):
        found.state["ratios"]
    assert "\n" not in str(error.value)
