"""Accuracy-aware training calls a script's functions as NNCF does, and ends with the largest level that is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import (
    NNCFConfig,
    create_accuracy_aware_training_loop,
    create_compressed_model,
    run_accuracy_aware,
)
from tests.compat.nncf.networks import Small

PARAMS = {"initial_training_phase_epochs": 2, "patience_epochs": 2}


def configured(mode: str, **more: Any) -> NNCFConfig:
    return NNCFConfig.from_dict(
        {
            "input_info": {"sample_size": [1, 3, 8, 8]},
            "accuracy_aware_training": {"mode": mode, "params": {**PARAMS, **more}},
            "compression": {
                "algorithm": "filter_pruning",
                "params": {"pruning_target": 0.25, "pruning_steps": 2},
            },
        }
    )


class Script:
    """A script's functions; the accuracy falls with the share of zeros, and with nothing else."""

    def __init__(self, net: nn.Module, least: int) -> None:
        self.net, self.least, self.rates, self.epochs = net, least, list[float](), list[int]()

    def train_epoch(self, ctrl: Any, model: nn.Module, **kwargs: Any) -> None:
        assert model is self.net
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        self.epochs.append(kwargs["epoch"])

    def validate(self, model: nn.Module, **kwargs: Any) -> float:
        return 99.5 if int((self.net.conv2.weight != 0).sum()) >= self.least * 32 * 9 else 50.0

    def optimizers(self) -> tuple[Any, None]:
        return torch.optim.SGD(self.net.parameters(), 0.1), None


def test_the_largest_level_that_keeps_the_accuracy() -> None:
    net, config = Small(), configured("adaptive_compression_level")
    ctrl, _ = create_compressed_model(net, config)
    script = Script(net, least=16)
    found = run_accuracy_aware(net, config, ctrl, 100.0, script.train_epoch, script.validate, script.optimizers)
    assert ctrl.current_groupwise_pruning_level[0] == 0.5
    assert 0.5 <= ctrl.pruning_level == found.compression_rate < 0.75
    assert found.compressed_accuracy == 99.5
    assert found.accuracy_budget == pytest.approx(0.5)
    assert script.epochs == list(range(len(script.epochs)))
    assert script.rates[0] == 0.1
    assert min(script.rates) < 0.1
    assert "compression rate" in found.to_str()


def test_no_level_keeps_the_accuracy() -> None:
    net, config = Small(), configured("adaptive_compression_level", maximal_absolute_accuracy_degradation=0.1)
    ctrl, _ = create_compressed_model(net, config)
    script = Script(net, least=99)
    with pytest.warns(UserWarning, match="no level was found at which the accuracy is kept"):
        run_accuracy_aware(net, config, ctrl, 100.0, script.train_epoch, script.validate, script.optimizers)


def test_early_exit() -> None:
    net, config = Small(), configured("early_exit", maximal_total_epochs=9)
    ctrl, _ = create_compressed_model(net, config)
    script = Script(net, least=8)
    folders: list[Any] = []
    loop = create_accuracy_aware_training_loop(config, ctrl, 100.0)
    assert loop.minimal_tolerable_accuracy == 99.0
    loop.run(
        net, script.train_epoch, script.validate, script.optimizers, lambda *given: folders.append(given[3]), "/tmp"
    )
    assert script.epochs == [0, 1], "fully compressed after two epochs"
    assert folders == ["/tmp", "/tmp"]
    with pytest.raises(UserError, match=r"^accuracy_aware_training: none given"):
        create_accuracy_aware_training_loop(NNCFConfig(), ctrl, 100.0)
