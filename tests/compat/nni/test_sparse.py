"""NNI's ADMM, lottery ticket and AutoCompress pruners, as its examples call them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni import ADMMPruner, AutoCompressPruner, LotteryTicketPruner
from pocketprune.structure.cost import count_macs
from tests.compat.small import digits


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def training(model: nn.Module, optimizer: Any = None, criterion: Any = None, epoch: int = 0) -> None:
    x, labels = digits()
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.01)
    for part in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(x[part:400:4]), labels[part:400:4]).backward()
        optimizer.step()


@pytest.mark.parametrize("base", ["level", "l1"])
def test_admm_trains_towards_what_it_then_masks(base: str) -> None:
    residuals = []
    for row in (1e-6, 1.0):
        net = mlp()
        pruner = ADMMPruner(
            net, [{"sparsity": 0.75, "op_types": ["Linear"], "op_names": ["1"]}], training, num_iterations=6,
            epochs_per_iteration=1, row=row, base_algo=base,
        )  # fmt: skip
        assert pruner.compress() is net
        residuals.append(pruner.admm.primal)
        assert float(pruner.masks["1"]["weight"].mean()) == 0.25
        assert not net[1].weight[pruner.masks["1"]["weight"] == 0].any()
    assert residuals[1] < 0.8 * residuals[0]


def test_lottery_shares_are_nnis_and_weights_return() -> None:
    net = mlp()
    first = net[1].weight.detach().clone()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    config = [{"sparsity": 0.8, "op_types": ["Linear"], "prune_iterations": 5}]
    pruner = LotteryTicketPruner(net, config, optimizer)
    assert pruner.compress() is net
    shares = []
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        mask = pruner.masks["1"]["weight"] if pruner.masks else torch.ones_like(first)
        shares.append(1 - float(mask.mean()))
        assert torch.equal(net[1].weight, first * mask)
        assert not optimizer.state
        training(net, optimizer)
        assert not net[1].weight[mask == 0].any()
    assert shares == pytest.approx([0, 0.2752, 0.4747, 0.6193, 0.7241, 0.8], abs=1e-3)
    with pytest.raises(UserError, match="prune_iterations: a round 6 asked for; there are 5"):
        pruner.prune_iteration_start()


@pytest.mark.slow
def test_auto_compress_returns_a_smaller_network() -> None:
    x, labels = digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip

    def judge(model: nn.Module) -> float:
        return float((model(x[400:600]).argmax(1) == labels[400:600]).float().mean())

    training(net)
    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    small = AutoCompressPruner(
        net, config, training, judge, x[:2], num_iterations=2, admm_num_iterations=2, admm_epochs_per_iteration=1,
        row=0.1, batches=[x[:200]],
    ).compress()  # fmt: skip
    assert 0.3 < count_macs(small, x[:2]) / count_macs(net, x[:2]) < 0.6


def test_what_is_missing_is_told() -> None:
    config = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    with pytest.raises(UserError, match="batches: none given"):
        AutoCompressPruner(mlp(), config, training, float, digits()[0][:2])
    with pytest.raises(UserError, match="base_algo: 'fpgm' given; level, l1, l2 are accepted"):
        ADMMPruner(mlp(), config, training, base_algo="fpgm")
    with pytest.raises(UserError, match="num_iterations: 0 given"):
        ADMMPruner(mlp(), config, training, num_iterations=0)
    with pytest.raises(UserError, match="prune_iterations: 0 given"):
        LotteryTicketPruner(mlp(), [{**config[0], "prune_iterations": 0}])
