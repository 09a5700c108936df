"""Splicing: two thresholds, between which a weight stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.numerics.thresholds import spliced
from pocketprune.sparsity.controller import sparsify
from pocketprune.sparsity.policy import SparsityPolicy

SPLICING: dict[str, Any] = {
    "ranking": "splicing",
    "low": 0.5,
    "high": 1.0,
    "mask": "live",
    "schedule": {"name": "linear", "target": 0.5, "init": 0.5, "steps": 9},
}


def test_between_the_thresholds_a_weight_stays_as_it_is() -> None:
    sizes, masked = torch.tensor([0.1, 0.1, 0.6, 0.6, 1.0, 1.2]), torch.tensor([False, True, False, True, True, False])
    assert spliced(sizes, masked, 0.5, 1.0).tolist() == [True, True, False, True, False, False]


def test_a_weight_comes_back_only_above_the_higher_threshold() -> None:
    net = nn.Linear(4, 1, bias=False)
    net.weight.data = torch.tensor([[0.2, 0.6, 1.0, 2.2]])  # mean 1, deviation d: thresholds 0.5 and 1 times 1 + d
    deviation = float(net.weight.detach().std())
    controller = sparsify(net, {**SPLICING, "sensitivity": 1.0})
    low, high = 0.5 * (1 + deviation), 1 + deviation
    seen = []
    for hidden in (0.2, 0.5 * (low + high), high + 0.01, 0.5 * (low + high), low - 0.01):
        controller.before_optimizer()
        net.weight.data[0, 0] = hidden  # what an optimizer may do to a live weight
        controller.step()
        controller.epoch_step()
        seen.append(bool(net.weight[0, 0] == 0))
    assert seen == [True, True, False, False, True]
    assert net.weight[0, 1:].tolist() == pytest.approx([0.0, 1.0, 2.2])


def test_a_splicing_controller_is_saved_with_its_thresholds() -> None:
    nets = [nn.Linear(8, 8) for _ in range(2)]
    controllers = [sparsify(net, SPLICING) for net in nets]
    controllers[0].epoch_step()
    nets[1].load_state_dict(nets[0].state_dict())
    controllers[1].load_state_dict(controllers[0].state_dict())
    for controller in controllers:
        controller.before_optimizer()
        controller.net.get_submodule("").weight.data.mul_(1.5)
        controller.step()
        controller.epoch_step()
    assert torch.equal(nets[0].weight, nets[1].weight)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mask": "hard"}, "splicing needs 'live'"),
        ({"low": 2.0}, "2 given; it must not be above high, 1"),
        ({"low": 0}, "0 given"),
        ({"pattern": "2:4"}, "it is a threshold for the magnitude of single weights"),
    ],
)
def test_what_cannot_be_spliced_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SparsityPolicy.from_dict(SPLICING | given)
