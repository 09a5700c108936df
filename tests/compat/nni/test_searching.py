"""The searching pruners meet the share that is asked for, judge as many networks as NNI does, and leave masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketprune.compat.nni import AGPPruner, NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner
from pocketprune.compat.nni.searching import SearchingPruner
from tests.compat.small import small_net, train

CONFIG = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]


class Judge:
    """Sees how much of conv1 is left; everything else is worth nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, net: nn.Module) -> float:
        self.calls += 1
        return float((net.conv1.weight != 0).float().mean())


@pytest.mark.parametrize("kind", [NetAdaptPruner, SimulatedAnnealingPruner, SensitivityPruner])
def test_share_is_met_and_what_matters_is_kept(kind: type[SearchingPruner]) -> None:
    net, judge = small_net(), Judge()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    pruner = kind(net, CONFIG, evaluator=judge)
    assert pruner.compress() is net
    masks = pruner.masks
    left = sum(float(own["weight"].sum()) for own in masks.values())
    assert left / sum(own["weight"].numel() for own in masks.values()) == pytest.approx(0.5, abs=0.06)
    assert masks["conv1"]["weight"].mean() >= masks["conv2"]["weight"].mean()
    pruner.unwrap_model()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_annealing_judges_as_many_networks_as_nni() -> None:
    judge = Judge()
    pruner = SimulatedAnnealingPruner(small_net(), CONFIG, evaluator=judge)
    pruner.compress()
    assert pruner.tasks == len(pruner.found.history) == 17


def test_agp_of_both_generations() -> None:
    net = small_net()
    early = {"initial_sparsity": 0, "final_sparsity": 0.8, "start_epoch": 1, "end_epoch": 7, "op_names": ["conv1"]}
    pruner = AGPPruner(net, [early], pruning_algorithm="l1")
    left = []
    for epoch in range(8):
        pruner.update_epoch(epoch)
        left.append(pruner.masks.get("conv1", {"bias": torch.ones(12)})["bias"].sum().item())
    assert left == [12, 12, 8, 5, 4, 3, 3, 3]  # 12 less 0, .3904, .6272, .7488, .7936, .8 of it
    pruner.unwrap_model()
    seen: list[float] = []

    def trainer(model: nn.Module, optimizer: object, criterion: object) -> None:
        train(model, optimizer, criterion)
        seen.append(float((model.conv1.weight.detach().flatten(1) != 0).any(1).sum()))

    late = AGPPruner(
        net,
        [{"sparsity": 0.8, "op_names": ["conv1"]}],
        torch.optim.SGD(net.parameters(), 0.01),
        trainer,
        nn.CrossEntropyLoss(),
        num_iterations=6,
        pruning_algorithm="l1",
    )
    late.compress()
    assert seen == [12, 8, 5, 4, 3, 3]
