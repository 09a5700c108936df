"""Callbacks in checkpoints: a resumed training equals an uninterrupted one, and one of others is refused."""

import contextlib
import dataclasses
import random

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.training.average import MovingAverage
from pocketprune.training.callbacks import Callback, CallbackList
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from tests.training.methods import Diary, Interrupting, LearnedScale, RandomMasks
from tests.training.tiny import TinySplit, conv_net, same_tensors

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)
LONGER = dataclasses.replace(QUICK, epochs=6, schedule=Cosine(0.1), clip_norm=1.0, ema_decay=0.9, save_step=5)


def test_interrupted_anywhere_the_training_ends_equal_to_the_bit(tmp_path):
    expected, generator = conv_net(dropout=0.3), random.Random(0)
    whole, objective = RandomMasks(), Interrupting(None)
    train(expected, TinySplit(), LONGER, objective=objective, callbacks=[whole, LearnedScale()], progress=False)
    for trial in range(6):
        checkpoints = Checkpoints(tmp_path / str(trial), keep=2)
        for at in (*(generator.randint(1, 12) for _ in range(3)), None):
            net = conv_net(dropout=0.3, seed=1 if checkpoints.steps() else 0)
            masks = RandomMasks()
            options = {"callbacks": [masks, LearnedScale()], "checkpoints": checkpoints, "progress": False}
            with contextlib.suppress(KeyboardInterrupt):
                train(net, TinySplit(), LONGER, objective=Interrupting(at), **options)
                break
        assert same_tensors(net, expected)
        assert masks.steps == whole.steps == 18
    again = conv_net(dropout=0.3, seed=2)
    options["callbacks"] = [RandomMasks(), LearnedScale()]
    assert train(again, TinySplit(), LONGER, **options).resumed_from == 18  # there is nothing left to do
    assert same_tensors(again, expected)


def test_checkpoints_of_other_callbacks_are_refused_in_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    train(conv_net(), TinySplit(), QUICK, callbacks=[RandomMasks()], checkpoints=checkpoints, progress=False)
    for callbacks, now in (([], "[]"), ([RandomMasks(), Diary("b")], "['RandomMasks', 'b']")):
        with pytest.raises(UserError) as caught:
            train(conv_net(), TinySplit(), QUICK, callbacks=callbacks, checkpoints=checkpoints, progress=False)
        where = f"{checkpoints.path(6)}: of another training"
        assert str(caught.value) == f"{where}: callbacks: ['RandomMasks'] saved, {now} now"


def test_names_are_unique():
    with pytest.raises(UserError, match=r"^callbacks: two are named 'MovingAverage'; "):
        train(
            conv_net(),
            TinySplit(),
            dataclasses.replace(QUICK, ema_decay=0.9),
            callbacks=[MovingAverage(0.5)],
            progress=False,
        )
    assert list(CallbackList([Diary(), Diary("b")]).by_name) == ["Diary", "b"]


def test_a_state_that_would_need_code_to_load_is_named(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"generator": torch.Generator()}

    with pytest.raises(TypeError, match=r"^state\['callbacks'\]\['Odd'\]\['generator'\] is a Generator"):
        train(conv_net(), TinySplit(), QUICK, callbacks=[Odd()], checkpoints=Checkpoints(tmp_path), progress=False)
