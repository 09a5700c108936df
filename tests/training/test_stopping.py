"""Signals come to all processes of a run and at any moment; what is done by then is saved."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import create_dataset
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.objectives import Classification
from pocketprune.training.stopping import Preempted, StopSignal, leaving_on_sigterm
from tests.datasets.files import write_images
from tests.training.tiny import TinySplit, conv_net, same_tensors
from tests.training.worker import ALONE

SETTINGS = dataclasses.replace(ALONE, epochs=3, batch_size=4, save_step=100)


class At(Classification):
    """Does something in one step of the training."""

    def __init__(self, step: int, what: Callable[[], object]) -> None:
        super().__init__(0.0)
        self.left, self.what = step, what

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left == 0:
            self.what()
        return super().__call__(net, images, labels)


def signal_all() -> None:
    """SIGTERM to the workers and then to this process, as from a cluster."""
    workers = multiprocessing.active_children()
    assert workers
    for process in (*workers, None):
        os.kill(process.pid if process else os.getpid(), signal.SIGTERM)
    for process in workers:
        process.join(0.5)


class OwnLoader(TinySplit):
    """A person's own split, with a DataLoader that knows nothing of signals."""

    def batches(self, batch_size: int, **how: object) -> Iterator[tuple[Tensor, Tensor]]:
        yield from DataLoader(list(super().batches(batch_size, **how)), batch_size=None, num_workers=2)


def test_loader_workers_that_are_signalled_too_lose_nothing(tmp_path: Path) -> None:
    folder = create_dataset("image_folder", data_dir=write_images(tmp_path / "data"), image_size=8, nb_workers=2).train
    expected, net, checkpoints = conv_net(), conv_net(), Checkpoints(tmp_path / "out")
    train(expected, folder, SETTINGS, progress=False, objective=Classification(0.0))
    with pytest.raises(Preempted, match="SIGTERM came by step 3"):
        train(net, folder, SETTINGS, checkpoints=checkpoints, objective=At(3, signal_all), progress=False)
    assert checkpoints.steps() == [3]
    again = conv_net(seed=1)
    train(again, folder, SETTINGS, checkpoints=checkpoints, objective=Classification(0.0), progress=False)
    assert same_tensors(again, expected)
    assert not multiprocessing.active_children()


def test_workers_of_an_own_loader_end_the_run_as_sigterm_does(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    settings = dataclasses.replace(SETTINGS, save_step=2)
    with pytest.raises(Preempted) as caught:
        train(conv_net(), OwnLoader(), settings, checkpoints=checkpoints, objective=At(5, signal_all), progress=False)
    assert "SIGTERM came" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert checkpoints.steps()[-1] >= 4


def test_a_worker_that_is_missed_before_the_signal_comes() -> None:
    with pytest.raises(Preempted, match="SIGTERM came to a worker"), leaving_on_sigterm():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")
    with pytest.raises(RuntimeError, match="Killed"), leaving_on_sigterm():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_an_error_after_sigterm_comes_from_it() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise OSError("a pipe\nis broken")

    with pytest.raises(Preempted, match="SIGTERM came, and then OSError: a pipe is broken; the same"), StopSignal():
        fail()
    with pytest.raises(OSError, match="by itself"), StopSignal():
        raise OSError("by itself")


def test_ctrl_c_saves_at_the_next_step(tmp_path: Path) -> None:
    checkpoints, before = Checkpoints(tmp_path), signal.getsignal(signal.SIGINT)
    once = At(5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C came by step 5"):
        train(conv_net(), TinySplit(), SETTINGS, checkpoints=checkpoints, objective=once, progress=False)
    assert checkpoints.steps() == [5]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    twice = At(5, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        train(conv_net(), TinySplit(), SETTINGS, checkpoints=checkpoints, objective=twice, progress=False)
    assert not checkpoints.steps()


def test_without_checkpoints_ctrl_c_ends_at_once() -> None:
    at = At(5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as caught:
        train(conv_net(), TinySplit(), SETTINGS, objective=at, progress=False)
    assert not str(caught.value)


def test_a_folder_of_checkpoints_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    checkpoints, expected, net = Checkpoints(tmp_path / "out"), conv_net(), conv_net()
    settings = dataclasses.replace(SETTINGS, save_step=4)
    train(expected, TinySplit(), settings, objective=Classification(0.0), progress=False)
    gone = At(6, lambda: shutil.rmtree(tmp_path / "out"))
    result = train(net, TinySplit(), settings, checkpoints=checkpoints, objective=gone, progress=False)
    assert checkpoints.steps()[-1] == result.steps
    assert same_tensors(net, expected)
