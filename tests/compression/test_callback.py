"""A policy carried out by the project's own loop: a resumed training equals an uninterrupted one to the bit."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.callback import callback
from pocketprune.compression.controller import Controller, compress
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from tests.structure.oracle import difference, outputs
from tests.training.methods import Interrupting
from tests.training.tiny import TinySplit, conv_net, same_tensors

SETTINGS = TrainSettings(
    batch_size=32, lrn_rate=0.05, epochs=6, schedule=Cosine(0.1), clip_norm=1.0, ema_decay=0.9, summ_step=2, save_step=5
)
RAMP = {"name": "agp", "init": 0.25, "target": 0.5, "start": 1, "steps": 4}
POLICIES: list[dict[str, Any]] = [
    {"mask": "soft", "schedule": RAMP, "regulariser": "group_lasso"},
    {"mask": "hard", "criterion": "taylor", "schedule": {**RAMP, "unit": "step", "steps": 10, "frequency": 3}},
]


def prepared(policy: dict[str, Any], seed: int = 0) -> tuple[nn.Module, Controller]:
    net = conv_net(dropout=0.3, seed=seed)
    batches = list(TinySplit().batches(48))
    return net, compress(net, torch.randn(2, 3, 8, 8), {"ignore": ["8"], **policy}, batches)


@pytest.mark.parametrize("policy", POLICIES, ids=["soft", "hard"])
def test_interrupted_anywhere_the_training_ends_equal_to_the_bit(tmp_path: Path, policy: dict[str, Any]) -> None:
    expected, whole = prepared(policy)
    train(expected, TinySplit(), SETTINGS, objective=Interrupting(None), callbacks=[callback(whole)], progress=False)
    assert [len(kept) for kept in whole.kept().values()] == [4, 4]
    generator = random.Random(0)
    for trial in range(2):
        checkpoints = Checkpoints(tmp_path / str(trial), keep=2)
        for at in (*(generator.randint(1, 12) for _ in range(3)), None):
            net, controller = prepared(policy, seed=1 if checkpoints.steps() else 0)
            options = {"callbacks": [callback(controller)], "checkpoints": checkpoints, "progress": False}
            with contextlib.suppress(KeyboardInterrupt):
                train(net, TinySplit(), SETTINGS, objective=Interrupting(at), **options)
                break
        assert same_tensors(net, expected)
        assert controller.kept() == whole.kept()
        assert controller.levels == whole.levels


@pytest.mark.parametrize("policy", POLICIES, ids=["soft", "hard"])
def test_the_averaged_network_is_masked_too(policy: dict[str, Any]) -> None:
    net, controller = prepared(policy)
    train(net, TinySplit(), SETTINGS, callbacks=[callback(controller)], progress=False)
    images = torch.randn(4, 3, 8, 8)
    smaller = controller.remove()
    assert smaller[0].weight.shape[0] == 4
    assert difference(outputs(smaller, images), outputs(net, images)) < 1e-6


def test_another_network_is_refused() -> None:
    controller = prepared(POLICIES[0])[1]
    with pytest.raises(UserError, match=r"^net: another network given than to compress\(\)$"):
        train(conv_net(), TinySplit(), SETTINGS, callbacks=[callback(controller)], progress=False)
