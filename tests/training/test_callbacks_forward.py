"""Callbacks that change the forward, and an ordinary network after it."""

import dataclasses

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.training.callbacks import Callback
from pocketprune.training.loop import train
from pocketprune.training.objectives import Classification
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from tests.training.methods import Diary, FakeQuantisation, Interrupting, LearnedScale, Rounded
from tests.training.tiny import TinySplit, conv_net

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)


def test_the_forward_can_be_changed_while_the_training_lasts():
    net, seen = conv_net(), []

    def objective(forward, images, labels):
        seen.append(forward[0].weight.detach().clone())
        return Classification()(forward, images, labels)

    settings = dataclasses.replace(QUICK, ema_decay=0.5)
    train(net, TinySplit(), settings, objective=objective, callbacks=[FakeQuantisation()], progress=False)
    assert all(torch.allclose(weight, Rounded()(weight), atol=1e-6) for weight in seen)
    assert not torch.equal(seen[0], seen[-1])
    assert set(net.state_dict()) == set(conv_net().state_dict())
    assert type(net[0]) is nn.Conv2d
    assert torch.allclose(net[0].weight, Rounded()(net[0].weight), atol=1e-6)


def test_a_new_parameter_trains_by_the_schedule_of_its_own_rate():
    scale, rates = LearnedScale(), []

    class Rates(Callback):
        def before_step(self, context):
            rates.append([group["lr"] for group in context.optimizer.param_groups])

    schedule = Cosine(0.5)
    train(
        conv_net(),
        TinySplit(),
        dataclasses.replace(QUICK, schedule=schedule),
        callbacks=[scale, Rates()],
        progress=False,
    )
    assert scale.learned != 1.0
    factors = [schedule(step, 6) for step in range(6)]
    assert [rate for *_, rate in rates] == pytest.approx([0.5 * factor for factor in factors])
    assert [rate for rate, *_ in rates] == pytest.approx([0.05 * factor for factor in factors])


def test_a_training_that_stops_early_leaves_an_ordinary_network():
    net, diary = conv_net(), Diary()
    with pytest.raises(KeyboardInterrupt):
        train(
            net,
            TinySplit(),
            dataclasses.replace(QUICK, ema_decay=0.9),
            objective=Interrupting(3),
            callbacks=[diary, FakeQuantisation(), LearnedScale()],
            progress=False,
        )
    assert diary.pages[-1] == ("on_end", 2, 0)
    assert set(net.state_dict()) == set(conv_net().state_dict())
    assert type(net[0]) is nn.Conv2d
    assert not net._forward_hooks


def test_if_one_cannot_start_those_before_it_are_ended():
    class Failing(Callback):
        def on_start(self, context):
            raise UserError("no batch norm to scale")

    net, diary = conv_net(), Diary()
    with pytest.raises(UserError, match="no batch norm to scale"):
        train(net, TinySplit(), QUICK, callbacks=[diary, LearnedScale(), Failing()], progress=False)
    assert [moment for moment, _, _ in diary.pages] == ["on_start", "on_end"]
    assert not net._forward_hooks
