import contextlib
import dataclasses
import random
import signal
import time

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.schedules import Cosine
from pocketprune.training.stopping import Preempted
from tests.training.launch import start
from tests.training.methods import Interrupting
from tests.training.tiny import TinySplit, conv_net, same_tensors
from tests.training.worker import ALONE

SETTINGS = dataclasses.replace(ALONE, epochs=6)  # 6 steps an epoch, 36 in all


def uninterrupted(settings=SETTINGS):
    net = conv_net(dropout=0.3)
    return net, train(net, TinySplit(), settings, progress=False)


def test_interrupted_anywhere_the_run_ends_equal_to_the_bit(tmp_path):
    expected, result = uninterrupted()
    generator = random.Random(0)
    for trial in range(10):
        checkpoints = Checkpoints(tmp_path / str(trial), keep=2)
        for at in (*(generator.randint(1, 20) for _ in range(4)), None):
            net = conv_net(dropout=0.3, seed=1 if checkpoints.steps() else 0)  # the checkpoint decides, not the net
            torch.rand(generator.randint(1, 9))
            with contextlib.suppress(KeyboardInterrupt):
                again = train(
                    net, TinySplit(), SETTINGS, checkpoints=checkpoints, objective=Interrupting(at), progress=False
                )
                break
        assert same_tensors(net, expected)
        assert (again.loss, again.accuracy) == (result.loss, result.accuracy)


@pytest.mark.parametrize("options", [{"optimizer": "adam", "lrn_rate": 0.01}, {"channels_last": True}])
def test_every_optimiser_and_layout_resumes(tmp_path, options):
    settings = dataclasses.replace(SETTINGS, **options)
    expected, _ = uninterrupted(settings)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(
            conv_net(dropout=0.3),
            TinySplit(),
            settings,
            checkpoints=checkpoints,
            objective=Interrupting(14),
            progress=False,
        )
    net = conv_net(dropout=0.3, seed=9)
    assert train(net, TinySplit(), settings, checkpoints=checkpoints, progress=False).resumed_from == 10
    assert same_tensors(net, expected)


def test_a_finished_training_returns_at_once_with_its_result(tmp_path):
    net, checkpoints = conv_net(dropout=0.3), Checkpoints(tmp_path)
    first = train(net, TinySplit(), SETTINGS, checkpoints=checkpoints, extra={"phase": "dense"}, progress=False)
    other = conv_net(seed=9, dropout=0.3)
    second = train(other, TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False)
    assert same_tensors(net, other)
    assert (second.resumed_from, second.loss, second.images_per_second) == (36, first.loss, 0)
    assert second.seconds == pytest.approx(first.seconds, abs=0.2)
    assert checkpoints.latest().state["extra"] == {"phase": "dense"}
    assert checkpoints.steps() == [30, 35, 36]


def test_sigterm_saves_at_the_next_step_and_the_run_continues(tmp_path):
    expected, _ = uninterrupted()
    checkpoints, before = Checkpoints(tmp_path), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM came by step 8 of 36") as caught:
        train(
            conv_net(dropout=0.3),
            TinySplit(),
            SETTINGS,
            checkpoints=checkpoints,
            objective=Interrupting(8, by_signal=True),
            progress=False,
        )
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoints.steps() == [5, 8]
    net = conv_net(dropout=0.3)
    assert train(net, TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False).resumed_from == 8
    assert same_tensors(net, expected)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(tmp_path):
    expected, _ = uninterrupted()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(
            conv_net(dropout=0.3),
            TinySplit(),
            SETTINGS,
            checkpoints=checkpoints,
            objective=Interrupting(13),
            progress=False,
        )
    newest = checkpoints.path(10)
    newest.write_bytes(newest.read_bytes()[:1000])
    net = conv_net(dropout=0.3)
    with pytest.warns(UserWarning, match="train-00000010"):
        assert train(net, TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False).resumed_from == 5
    assert same_tensors(net, expected)


def test_checkpoints_of_another_training_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    train(conv_net(), TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False)

    def refused(match, *, net=None, split=None, **changes):
        with pytest.raises(UserError, match=match):
            train(
                net or conv_net(),
                split or TinySplit(),
                dataclasses.replace(SETTINGS, **changes),
                checkpoints=checkpoints,
                progress=False,
            )

    refused(r"lrn_rate: 0.05 saved, 0.1 now; seed: 3 saved, 4 now", lrn_rate=0.1, seed=4)
    refused(r"schedule: Cosine\(warmup=0.1, final=0.0\) saved, Cosine\(warmup=0.2, ", schedule=Cosine(0.2))
    refused(r"8.bias: \(4,\) saved, \(5,\) now", net=conv_net(5))
    refused(r"steps_per_epoch: 6 saved, 12 now", split=TinySplit(count=192))
    train(
        conv_net(),
        TinySplit(),
        dataclasses.replace(SETTINGS, save_step=7, summ_step=1),
        checkpoints=checkpoints,
        progress=False,
    )
    checkpoints.save({"format": 99}, 40)
    refused("of format 99; accepted is 2")


def test_kill_9_at_random_moments_loses_at_most_save_step_steps(tmp_path):
    generator, checkpoints = random.Random(1), Checkpoints(tmp_path)
    for life in range(8):
        before = checkpoints.steps()
        run = start("train", tmp_path, {}, tmp_path / "output")
        while checkpoints.steps() == before and run.is_alive():
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL, f"life {life} ended before it was killed"
    reached = checkpoints.latest().step
    run = start("train", tmp_path, {}, tmp_path / "output")
    run.join()
    assert (tmp_path / "output").read_text() == f"resumed from {reached}\n"
    expected, _ = uninterrupted(ALONE)
    net = conv_net()
    net.load_state_dict(torch.load(tmp_path / "result.pt", weights_only=True))
    assert same_tensors(net, expected)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("optimizer"), "damaged .KeyError: 'optimizer'"),
        (lambda state: state.update(net=[1, 2]), "damaged .AttributeError"),
        (lambda state: state["net"].update({"0.bias": torch.ones(8).long()}), "'0.bias' is int64; expected float32"),
        (lambda state: state["optimizer"].update(state=7), "damaged "),
        (lambda state: state.update(random=[{"python": 3}]), "damaged "),
    ],
    ids=["missing", "no tensors", "whole numbers", "optimiser", "generators"],
)
def test_a_tampered_checkpoint_is_refused_in_a_line(tmp_path, change, words):
    checkpoints = Checkpoints(tmp_path)
    train(conv_net(), TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False)
    state = checkpoints.latest().state
    change(state)
    checkpoints.save(state, 36)
    with pytest.raises(UserError, match=words) as caught:
        train(conv_net(), TinySplit(), SETTINGS, checkpoints=checkpoints, progress=False)
    assert str(caught.value).startswith(str(checkpoints.path(36)))
    assert "\n" not in str(caught.value)
