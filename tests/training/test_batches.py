import pytest

from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.batches import steps_per_epoch
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net

QUICK = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=2, summ_step=2)


def test_the_global_batch_must_be_shared_evenly(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UserError, match="batch_size: 128 given; it must be a multiple of the 3 processes"):
        steps_per_epoch(TinySplit(), TrainSettings())
    with pytest.raises(UserError, match="96 are too few; batch_size=99 on 3 process"):
        steps_per_epoch(TinySplit(), TrainSettings(batch_size=99))
    assert steps_per_epoch(TinySplit(), TrainSettings(batch_size=30)) == 3


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="too few"):
        train(conv_net(), TinySplit(count=0), QUICK, progress=False)
    short = TinySplit()
    short.batches = lambda *_args, **_options: iter(list(TinySplit().batches(32))[:2])
    with pytest.raises(RuntimeError, match="gave 2 batches of 3"):
        train(conv_net(), short, QUICK, progress=False)
