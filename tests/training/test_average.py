import dataclasses

import pytest
import torch
from torch.nn import functional as F

from pocketprune.common.errors import UserError
from pocketprune.training.average import MovingAverage
from pocketprune.training.callbacks import Callback
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net, same_tensors

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)


def test_ema_is_the_running_mean_of_weights_and_statistics():
    steps, decay = 6, 0.8
    trail = [conv_net() for _ in range(steps)]
    for count, net in enumerate(trail, 1):
        train(net, TinySplit(), dataclasses.replace(QUICK, epochs=count / 3), progress=False)
    averaged = conv_net()
    train(averaged, TinySplit(), dataclasses.replace(QUICK, ema_decay=decay), progress=False)
    for name in ("0.weight", "1.running_var", "8.bias"):
        expected = trail[0].state_dict()[name]
        for net in trail[1:]:
            expected = decay * expected + (1 - decay) * net.state_dict()[name]
        assert torch.allclose(averaged.state_dict()[name], expected, atol=1e-6)
    assert averaged[1].num_batches_tracked.item() == steps


def test_ema_equals_an_explicit_loop_to_the_bit():
    averaged, split, net = conv_net(), TinySplit(), conv_net()
    train(averaged, split, dataclasses.replace(QUICK, ema_decay=0.8, weight_decay=0.0), progress=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, fused=True)
    average = None
    for epoch in range(2):
        for images, labels in split.batches(32, epoch=epoch, shuffle=True, augment=True, drop_last=True):
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            now = {name: tensor.clone() for name, tensor in net.state_dict().items()}
            floats = [name for name in now if average and now[name].is_floating_point()]
            average = now | {name: torch.lerp(average[name], now[name], 1 - 0.8) for name in floats}
    for name, tensor in averaged.state_dict().items():
        assert torch.equal(tensor, average[name]), name


def test_on_epoch_sees_the_network_to_evaluate_and_leaves_training_alone():
    average, seen, plain, watched = MovingAverage(0.5), [], conv_net(), conv_net()

    class Evaluating(Callback):
        def on_epoch(self, context):
            own = context.net[0].weight.clone()
            with average.applied():
                accuracy = evaluate(context.net, TinySplit(), 32, progress=False).accuracy
                seen.append((context.epoch, context.step, accuracy))
                assert not torch.equal(context.net[0].weight, own)
            assert torch.equal(context.net[0].weight, own)
            context.net.eval()

    settings = dataclasses.replace(QUICK, epochs=2.5)
    train(plain, TinySplit(), dataclasses.replace(settings, ema_decay=0.5), progress=False)
    train(watched, TinySplit(), settings, progress=False, callbacks=[average, Evaluating()])
    assert [(epoch, step) for epoch, step, _ in seen] == [(1, 3), (2, 6), (3, 8)]
    assert seen[-1][2] == evaluate(watched, TinySplit(), 32, progress=False).accuracy
    assert same_tensors(plain, watched)


@pytest.mark.parametrize("decay", [-0.1, 1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=rf"^decay: {decay} given; "):
        MovingAverage(decay)
