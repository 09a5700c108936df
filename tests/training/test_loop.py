import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.schedules import Cosine, Piecewise
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net, same_tensors

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)


def test_it_learns_a_trivial_task():
    net, split = conv_net(), TinySplit()
    result = train(net, split, dataclasses.replace(QUICK, epochs=30, schedule=Cosine(0.1)), progress=False)
    found = evaluate(net, split, 50, progress=False)
    assert found.accuracy > 0.95
    assert result.accuracy > 0.9
    assert (result.steps, result.resumed_from) == (90, 0)
    assert result.images_per_second > 0


def test_plain_steps_are_those_of_a_hand_written_loop():
    """SGD with momentum, L2 on all but the batch norm, rates by the schedule, data by (seed, epoch)."""
    settings = dataclasses.replace(
        QUICK,
        epochs=2.34,
        schedule=Piecewise((0.5,)),
        weight_decay=0.1,
        label_smoothing=0.2,
        clip_norm=0.5,
        seed=7,
    )
    net, split, by_hand = conv_net(), TinySplit(), conv_net()
    train(net, split, settings, progress=False)
    data = [
        batch
        for epoch in range(3)
        for batch in split.batches(32, seed=7, epoch=epoch, shuffle=True, augment=True, drop_last=True)
    ][:7]
    momenta = {name: torch.zeros_like(parameter) for name, parameter in by_hand.named_parameters()}
    for step, (images, labels) in enumerate(data):
        logits = by_hand(images)
        target = F.one_hot(labels, 4) * 0.8 + 0.2 / 4
        (-(target * logits.log_softmax(1)).sum(1).mean()).backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in by_hand.parameters()))
        for name, parameter in by_hand.named_parameters():
            gradient = parameter.grad * min(1.0, 0.5 / norm) + (0.0 if name.startswith("1.") else 0.1) * parameter.data
            momenta[name] = 0.9 * momenta[name] + gradient
            parameter.data -= (0.05 if step < 4 else 0.005) * momenta[name]
            parameter.grad = None
    for ours, theirs in zip(net.state_dict().values(), by_hand.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_adam_is_torch_adam():
    net, split, by_hand = conv_net(norm=False), TinySplit(), conv_net(norm=False)
    train(net, split, dataclasses.replace(QUICK, epochs=1, optimizer="adam", weight_decay=0.01), progress=False)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.05, weight_decay=0.01)
    for images, labels in split.batches(32, shuffle=True, augment=True):
        optimizer.zero_grad()
        F.cross_entropy(by_hand(images), labels).backward()
        optimizer.step()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(net.parameters(), by_hand.parameters(), strict=True))


def test_same_seed_same_result_and_whatever_came_before():
    first, second, third = (conv_net(dropout=0.3) for _ in range(3))
    train(first, TinySplit(), QUICK, progress=False)
    torch.rand(17)
    train(second, TinySplit(), dataclasses.replace(QUICK, summ_step=5), progress=False)
    train(third, TinySplit(), dataclasses.replace(QUICK, seed=1), progress=False)
    assert same_tensors(first, second)
    assert not same_tensors(first, third)


class CountReads(TorchFunctionMode):
    """Counts what makes the host wait for a device: reading numbers out of a tensor."""

    READS = frozenset({"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"})

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.reads += [func.__name__] if getattr(func, "__name__", "") in self.READS else []
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("progress", [False, True])
def test_no_step_waits_for_the_device(progress):
    settings = dataclasses.replace(QUICK, epochs=4, summ_step=6, clip_norm=1.0, ema_decay=0.9)
    with CountReads() as count:
        train(conv_net(), TinySplit(), settings, progress=progress)
    assert count.reads == ["tolist", "tolist"]  # two summaries in twelve steps
    with CountReads() as count:
        evaluate(conv_net(), TinySplit(), 8, progress=progress)
    assert count.reads == ["tolist"]


@pytest.mark.parametrize("options", [{"channels_last": True}, {"amp": "bf16"}])
def test_speed_options_leave_an_ordinary_network_that_learnt(options):
    net = conv_net()
    train(net, TinySplit(), dataclasses.replace(QUICK, epochs=30, **options), progress=False)
    assert evaluate(net, TinySplit(), 32, progress=False, amp=options.get("amp", "off")).accuracy > 0.95
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in net.parameters())


def test_compile_wraps_the_network_and_only_for_the_training(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    net = conv_net()
    train(net, TinySplit(), dataclasses.replace(QUICK, compile=True), progress=False)
    assert compiled == [net]


def test_a_split_smaller_than_a_batch_is_one_step_an_epoch():
    result = train(conv_net(), TinySplit(count=10), dataclasses.replace(QUICK, epochs=3), progress=False)
    assert result.steps == 3


def test_parameters_outside_modules_train_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.scale = conv_net(), nn.Parameter(torch.ones(()))

        def forward(self, images):
            return self.body(images) * self.scale

    net = Scaled()
    train(net, TinySplit(), QUICK, progress=False)
    assert net.scale.item() != 1.0
