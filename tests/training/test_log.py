import dataclasses
import math

import pytest
import torch

from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.log import NonFiniteError
from pocketprune.training.loop import train
from pocketprune.training.metrics import NullRecorder
from pocketprune.training.objectives import Classification
from pocketprune.training.schedules import Piecewise
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)


class Notes(NullRecorder):
    def __init__(self):
        self.points = []

    def record(self, key, value, step):
        self.points.append((key, step, value))

    def of(self, key):
        return [(step, value) for name, step, value in self.points if name == key]


def test_the_records_are_the_means_between_summaries():
    notes, losses = Notes(), []

    def objective(net, images, labels):
        loss, logits = Classification()(net, images, labels)
        losses.append((loss.item(), (logits.argmax(1) == labels).float().mean().item()))
        return loss, logits

    result = train(
        conv_net(),
        TinySplit(),
        dataclasses.replace(QUICK, epochs=5 / 3, schedule=Piecewise((0.5,))),
        objective=objective,
        recorder=notes,
        label="tune",
        progress=False,
    )
    assert [step for step, _ in notes.of("tune/loss")] == [2, 4, 5]
    pairs = [losses[0:2], losses[2:4], losses[4:5]]
    assert [v for _, v in notes.of("tune/loss")] == pytest.approx([sum(x for x, _ in p) / len(p) for p in pairs])
    assert [v for _, v in notes.of("tune/accuracy")] == pytest.approx([sum(x for _, x in p) / len(p) for p in pairs])
    assert [v for _, v in notes.of("tune/learning_rate")] == pytest.approx([0.05, 0.005, 0.005])
    assert (result.loss, result.accuracy) == pytest.approx(losses[4])


@pytest.mark.parametrize("summ_step", [3, 100])
def test_non_finite_loss_stops_the_run_and_no_bad_checkpoint_is_written(tmp_path, summ_step):
    def objective(net, images, labels):
        loss, logits = Classification()(net, images, labels)
        objective.step += 1
        return loss * (math.nan if objective.step == 8 else 1.0), logits

    objective.step = 0
    checkpoints, net = Checkpoints(tmp_path), conv_net()
    settings = dataclasses.replace(QUICK, epochs=10, save_step=5, summ_step=summ_step)
    interval = "7 to 9" if summ_step == 3 else "6 to 10"  # since the last summary or checkpoint
    where = rf"from {interval}; the last good checkpoint is .*train-00000005.pt; lower"
    with pytest.raises(NonFiniteError, match=where):
        train(net, TinySplit(), settings, objective=objective, checkpoints=checkpoints, progress=False)
    assert checkpoints.steps() == [5]


def test_a_weight_that_became_infinite_is_not_saved(tmp_path):
    def objective(net, images, labels):
        logits = net(images)
        return (logits * 0).sum() + torch.sqrt(logits.sum() * 0), logits  # loss 0, gradient infinite times 0

    with pytest.raises(NonFiniteError, match="there is no checkpoint yet"):
        train(
            conv_net(),
            TinySplit(),
            dataclasses.replace(QUICK, save_step=1),
            objective=objective,
            checkpoints=Checkpoints(tmp_path),
            progress=False,
        )
