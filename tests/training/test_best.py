"""The state that a training ends with when it is judged: the best one, the start included."""

import contextlib
import dataclasses
import random

import pytest
import torch

from pocketprune.training.best import BestState
from pocketprune.training.callbacks import Callback
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.state import TrainSettings
from tests.training.methods import Interrupting, LearnedScale
from tests.training.tiny import TinySplit, conv_net, same_tensors

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=5, summ_step=2)


class Scripted:
    """A judge whose opinions are written down beforehand. It remembers what it saw."""

    def __init__(self, *opinions):
        self.opinions, self.seen = list(opinions), []

    def __call__(self, net):
        assert not any(module.training for module in net.modules())
        self.seen.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return (self.opinions[len(self.seen) - 1],)


@pytest.mark.parametrize(
    ("opinions", "epoch"),
    [((0.1, 0.3, 0.2, 0.5, 0.5, 0.4), 3), ((0.6, 0.3, 0.2, 0.5, 0.5, 0.6), 0), ((0.1, float("nan"), 0, 0, 0, 0.2), 5)],
)
def test_the_best_state_is_kept_the_start_included_and_the_earliest_of_equals(opinions, epoch):
    net, judge = conv_net(), Scripted(*opinions)
    best = train(net, TinySplit(), QUICK, judge=judge, progress=False).best
    assert (best.epoch, best.step, best.quality, best.start) == (epoch, 3 * epoch, (opinions[epoch],), (opinions[0],))
    assert len(judge.seen) == 6
    assert all(torch.equal(tensor, judge.seen[epoch][name]) for name, tensor in net.state_dict().items())


def test_without_a_judge_and_with_one_that_likes_the_last_state_the_same_steps_are_done():
    plain, judged = conv_net(dropout=0.3), conv_net(dropout=0.3)
    assert train(plain, TinySplit(), QUICK, progress=False).best is None
    train(judged, TinySplit(), QUICK, judge=Scripted(*range(6)), progress=False)
    assert same_tensors(plain, judged)


def test_averaged_weights_are_judged_and_kept():
    settings = dataclasses.replace(QUICK, ema_decay=0.8)
    averaged, judged = conv_net(), conv_net()
    train(averaged, TinySplit(), dataclasses.replace(settings, epochs=2), progress=False)
    train(judged, TinySplit(), settings, judge=Scripted(0, 1, 2, 0, 0, 0), progress=False)
    assert same_tensors(averaged, judged)


def test_interrupted_anywhere_it_ends_with_the_same_state_to_the_bit(tmp_path):
    settings = dataclasses.replace(QUICK, epochs=6, save_step=5, ema_decay=0.5, lrn_rate=0.3)
    split, generator = TinySplit(count=24), random.Random(0)

    def judge(net):
        return (evaluate(net, TinySplit(count=40), 40, progress=False).accuracy,)

    expected = conv_net(dropout=0.3)
    settings = dataclasses.replace(settings, batch_size=4)
    whole = train(expected, split, settings, objective=Interrupting(None), judge=judge, progress=False)
    assert 0 < whole.best.step < 36  # neither end, or the test would show little
    for trial in range(4):
        checkpoints = Checkpoints(tmp_path / str(trial), keep=2)
        for at in (*(generator.randint(1, 20) for _ in range(3)), None):
            net = conv_net(dropout=0.3)
            options = {"judge": judge, "checkpoints": checkpoints, "progress": False}
            with contextlib.suppress(KeyboardInterrupt):
                again = train(net, split, settings, objective=Interrupting(at), **options)
                break
        assert same_tensors(net, expected)
        assert again.best == whole.best


def test_what_a_callback_added_to_the_network_is_taken_out_again():
    net, keys = conv_net(), list(conv_net().state_dict())
    train(net, TinySplit(), QUICK, callbacks=[LearnedScale()], judge=Scripted(0, 1, 0, 0, 0, 0), progress=False)
    assert list(net.state_dict()) == keys


def test_a_training_that_stops_early_leaves_its_last_state():
    class Stops(Callback):
        def after_step(self, context):
            if context.step == 5:
                raise KeyboardInterrupt

    net, judge = conv_net(), Scripted(1, 0)
    with pytest.raises(KeyboardInterrupt):
        train(net, TinySplit(), QUICK, callbacks=[Stops()], judge=judge, progress=False)
    assert not torch.equal(net[0].weight, judge.seen[0]["0.weight"])
    assert BestState(judge).name == ""
