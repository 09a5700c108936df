"""ADMM: a convex problem with a known answer, and a training that is resumed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.numerics.projections import SparseSet
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.training.callbacks import TrainContext
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.methods import Interrupting
from tests.training.tiny import TinySplit, conv_net, same_tensors


def test_a_separable_problem_ends_at_its_known_answer() -> None:
    """Of |W - T|^2 over the matrices with half zeros, the least is T with its smaller half set to zero."""
    target = torch.tensor([[4.0, -3, 0.5, 0.2], [0.1, 2, -5, 0.3]])
    net = nn.Linear(4, 2, bias=False).double()
    admm = Admm(net, {"": SparseSet("weights", 0.5)}, AdmmSettings(rounds=60, rho=1.0, rho_growth=1.0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    context = TrainContext(net, optimizer, torch.device("cpu"), total=1, per_epoch=1)
    residuals = []
    for _ in range(60):
        for _ in range(30):
            optimizer.zero_grad()
            (0.5 * (net.weight - target).square().sum() + admm.penalty(context)).backward()
            optimizer.step()
        admm.end_round()
        residuals.append((admm.primal, admm.dual))
    answer = torch.where(target.abs() >= 2, target, 0.0).double()
    assert torch.allclose(net.weight, answer, atol=1e-6)
    assert residuals[-1][0] < 1e-6 < residuals[0][0]
    assert residuals[-1][1] < 1e-6
    assert torch.equal(admm.masked()[""], answer == 0)


def test_the_penalty_is_half_rho_times_the_squared_distance() -> None:
    net = nn.Linear(4, 3)
    admm = Admm(net, {"": SparseSet("weights", 0.5)}, AdmmSettings(rho=0.5))
    context = TrainContext(net, torch.optim.SGD(net.parameters()), torch.device("cpu"), total=1, per_epoch=1)
    away = net.weight.detach().abs().flatten().sort().values[:6]
    assert float(admm.penalty(context).detach()) == pytest.approx(0.25 * float(away.square().sum()))


def test_residuals_fall_and_a_resumed_training_ends_the_same(tmp_path: Path) -> None:
    settings = TrainSettings(batch_size=32, lrn_rate=0.05, epochs=8, summ_step=2, save_step=5)
    sets = {"0": SparseSet("filters", 0.25), "3": SparseSet("weights", 0.5), "8": SparseSet("channels", 0.5)}
    rounds = AdmmSettings(rounds=6, rho=0.1, rho_growth=2.0)
    nets = []
    for folder, ends in (("whole", [None]), ("killed", [7, None])):
        for at in ends:
            net = conv_net()
            admm = Admm(net, sets, rounds)
            options = {"objective": Interrupting(at), "checkpoints": Checkpoints(tmp_path / folder), "progress": False}
            with contextlib.suppress(KeyboardInterrupt):
                train(net, TinySplit(), settings, callbacks=[admm], **options)
        nets.append(net)
        assert admm.round == 6
        assert admm.rho == pytest.approx(0.1 * 2**6)
        assert admm.primal < 0.5 * float((net[3].weight - sets["3"].nearest(conv_net()[3].weight)).norm())
    assert same_tensors(*nets)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rho": 0.0}, {"rho_growth": 0.5}])
def test_settings_out_of_range_are_one_line(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: .* given; expected a"):
        AdmmSettings(**wrong)


def test_layers_are_named() -> None:
    with pytest.raises(UserError, match=r"^sets: 'conv' given"):
        Admm(conv_net(), {"conv": SparseSet("weights", 0.5)})
