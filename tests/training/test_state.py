import math

import pytest

from pocketprune.common.errors import UserError
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", math.nan),
        ("batch_size", 0),
        ("lrn_rate", -1),
        ("lrn_rate", math.inf),
        ("momentum", 1),
        ("weight_decay", -1e-9),
        ("label_smoothing", 1),
        ("ema_decay", 1.5),
        ("clip_norm", -1),
        ("amp", "fp16"),
        ("optimizer", "lion"),
        ("save_step", 0),
        ("summ_step", 0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=rf"^{name}: {value!r} given; "):
        TrainSettings(**{name: value})


def test_a_network_without_parameters_to_train_is_refused():
    frozen = conv_net().requires_grad_(False)
    with pytest.raises(UserError, match="no parameter to train"):
        train(frozen, TinySplit(), TrainSettings(), progress=False)
