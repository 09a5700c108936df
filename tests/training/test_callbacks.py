"""Callbacks: when they are called, and what they can change."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketprune.training.average import MovingAverage
from pocketprune.training.callbacks import Callback, CallbackList, TrainContext
from pocketprune.training.log import NonFiniteError
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.methods import Diary, RandomMasks
from tests.training.tiny import TinySplit, conv_net, same_tensors

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)  # 3 steps an epoch


def test_moments_come_in_their_order_with_step_and_epoch():
    diary = Diary()
    train(conv_net(), TinySplit(), dataclasses.replace(QUICK, epochs=5 / 3), callbacks=[diary], progress=False)
    expected = [("on_start", 0, 0)]
    for step in range(5):
        epoch = step // 3
        expected += [(moment, step, epoch) for moment in ("before_step", "penalty", "after_backward")]
        expected += [("after_step", step + 1, (0, 0, 1, 1, 2)[step])]
        expected += [("on_epoch", step + 1, epoch + 1)] if step in (2, 4) else []
    assert diary.pages == [*expected, ("on_end", 5, 2)]


def test_callbacks_are_called_in_their_order_and_ended_in_reverse():
    pages = []
    callbacks = [Diary("a ", pages), Diary("b ", pages)]
    train(conv_net(), TinySplit(), dataclasses.replace(QUICK, epochs=1 / 3), callbacks=callbacks, progress=False)
    moments = ("on_start", "before_step", "penalty", "after_backward", "after_step", "on_epoch")
    expected = [f"{name} {moment}" for moment in moments for name in "ab"]
    assert [name for name, _, _ in pages] == [*expected, "b on_end", "a on_end"]


def test_a_callback_that_does_nothing_changes_nothing():
    plain, watched, settings = conv_net(dropout=0.3), conv_net(dropout=0.3), dataclasses.replace(QUICK, ema_decay=0.9)
    first = train(plain, TinySplit(), settings, progress=False)
    second = train(watched, TinySplit(), settings, callbacks=[Callback(), Diary()], progress=False)
    assert same_tensors(plain, watched)
    assert (first.loss, first.accuracy) == (second.loss, second.accuracy)


def test_masks_and_penalty_are_those_of_a_hand_written_loop():
    """Masked gradients count in no norm; weights and momenta stay zero; the penalty is in the recorded loss."""
    settings = dataclasses.replace(QUICK, clip_norm=0.5, weight_decay=0.0)
    net, split, by_hand = conv_net(), TinySplit(), conv_net()
    result = train(net, split, settings, callbacks=[RandomMasks(strength=0.1)], progress=False)
    momenta = {name: torch.zeros_like(parameter) for name, parameter in by_hand.named_parameters()}
    generator, losses = torch.Generator().manual_seed(11), []
    for epoch in range(2):
        mask = torch.rand(by_hand[0].weight.shape, generator=generator) > 0.25
        by_hand[0].weight.data *= mask
        for images, labels in split.batches(32, epoch=epoch, shuffle=True, augment=True, drop_last=True):
            loss = F.cross_entropy(by_hand(images), labels) + 0.1 * by_hand[-1].weight.abs().sum()
            loss.backward()
            losses.append(loss.item())
            by_hand[0].weight.grad *= mask
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in by_hand.parameters()))
            momenta["0.weight"] *= mask
            for name, parameter in by_hand.named_parameters():
                momenta[name] = 0.9 * momenta[name] + parameter.grad * min(1.0, 0.5 / norm)
                parameter.data -= 0.05 * momenta[name]
                parameter.grad = None
    assert torch.equal(net[0].weight == 0, ~mask)
    assert result.loss == pytest.approx(sum(losses[-2:]) / 2)
    for ours, theirs in zip(net.state_dict().values(), by_hand.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_in_somebody_elses_loop_they_do_the_same():
    settings = dataclasses.replace(QUICK, weight_decay=0.0, ema_decay=0.8)
    ours, net, split = conv_net(), conv_net(), TinySplit()
    train(ours, split, settings, callbacks=[RandomMasks()], progress=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, fused=True)
    callbacks = CallbackList([RandomMasks(), MovingAverage(0.8)])
    context = TrainContext(net, optimizer, torch.device("cpu"), total=6, per_epoch=3)
    callbacks.on_start(context)
    for epoch in range(2):
        for images, labels in split.batches(32, epoch=epoch, shuffle=True, augment=True, drop_last=True):
            callbacks.before_step(context)
            (F.cross_entropy(net(images), labels) + callbacks.penalty(context)).backward()
            callbacks.after_backward(context)
            optimizer.step()
            optimizer.zero_grad()
            context = dataclasses.replace(context, step=context.step + 1)
            callbacks.after_step(context)
        callbacks.on_epoch(context)
    callbacks.on_end(context)
    assert same_tensors(ours, net)


def test_penalties_add_up_and_a_non_finite_one_stops_the_training():
    class Constant(Callback):
        def __init__(self, value):
            self.name, self.value = str(value), value

        def penalty(self, context):
            return torch.tensor(self.value)

    context = TrainContext(nn.Identity(), torch.optim.SGD([torch.zeros(1)]), torch.device("cpu"), 1, 1)
    assert CallbackList([Constant(0.5), Callback(), Constant(0.25)]).penalty(context).item() == 0.75
    assert CallbackList([Callback()]).penalty(context) is None
    with pytest.raises(NonFiniteError, match="since a step from 1 to 2"):
        train(conv_net(), TinySplit(), QUICK, callbacks=[Constant(math.nan)], progress=False)


def test_what_on_epoch_does_to_the_modes_leaves_training_alone():
    class Evaluating(Callback):
        def on_epoch(self, context):
            context.net.eval()

    plain, watched = conv_net(dropout=0.3), conv_net(dropout=0.3)
    train(plain, TinySplit(), QUICK, progress=False)
    train(watched, TinySplit(), QUICK, callbacks=[Evaluating()], progress=False)
    assert same_tensors(plain, watched)
