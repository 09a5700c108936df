"""Distiller's pruners of single weights in its files."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.distiller.building import plan_for
from pocketprune.compat.distiller.reading import parse_document
from pocketprune.compat.distiller.scheduler import CompressionScheduler
from pocketprune.sparsity.controller import sparsify
from pocketprune.structure.channel_groups import analyse

FILE = """
pruners:
  gradual: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, weights: [module.0.weight]}
  levels: {class: SparsityLevelParameterPruner, levels: {2.weight: 0.75}}
  thresholds: {class: SensitivityPruner, sensitivities: {4.weight: 0.5}}
policies:
  - pruner: {instance_name: gradual}
    starting_epoch: 0
    ending_epoch: 30
    frequency: 2
  - pruner: {instance_name: levels}
    epochs: [3]
  - pruner: {instance_name: thresholds}
    starting_epoch: 1
    ending_epoch: 5
"""


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 10))


def test_a_file_masks_by_curve_level_and_threshold() -> None:
    net = mlp()
    plan = plan_for(parse_document(FILE), analyse(net, torch.zeros(2, 20)))
    assert plan.policy is None
    assert plan.weights is not None
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    scheduler = CompressionScheduler(net, optimizer, plan, None, sparsify(net, plan.weights))
    shares = {}
    for epoch in range(30):
        expected = net[4].weight.detach().abs() < 0.5 * net[4].weight.detach().std()
        scheduler.on_epoch_begin(epoch)
        shares[epoch] = [float((net[i].weight == 0).float().mean()) for i in (0, 2, 4)]
        if epoch == 1:
            assert torch.equal(net[4].weight == 0, expected)
        optimizer.zero_grad()
        net(torch.randn(8, 20)).square().sum().backward()
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1)
    assert [round(shares[e][0], 4) for e in (0, 2, 4, 6, 14, 28)] == [0.1, 0.18, 0.248, 0.306, 0.45, 0.5]
    assert [shares[e][1] for e in (2, 3, 29)] == [0, 0.75, 0.75]
    assert shares[0][2] == 0
    assert scheduler.state_dict()["weights"]["epoch"] == 29


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("final_sparsity: 0.5", "final_sparsity: 1", "line 3: .*final_sparsity: 1 given; .0, 1. accepted"),
        ("final_sparsity: 0.5", "final_sparsity: 0.1", "it must be above initial_sparsity"),
        ("module.0.weight", "module.0.weigth", "did you mean '0.weight'"),
        ("4.weight: 0.5", "4.weight: 0", "a number of standard deviations above 0"),
        ("levels: {2.weight", "level: {2.weight", "no such key; did you mean 'levels'"),
        ("SensitivityPruner", "BaiduRNNPruner", "BaiduRNNPruner masks no ranked structures"),
        ("SensitivityPruner", "SplicingPruner", "low_thresh_mult: None given; a factor above 0 is accepted"),
    ],
)
def test_faults_are_told_with_their_line(old: str, new: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_for(parse_document(FILE.replace(old, new)), analyse(mlp(), torch.zeros(2, 20)))


def test_a_splicing_pruner_follows_the_surgery_function() -> None:
    text = """
pruners:
  surgery:
    class: SplicingPruner
    low_thresh_mult: 0.9
    hi_thresh_mult: 1.1
    sensitivity_multiplier: 0.5
    sensitivities: {"*": 0.2, 0.weight: 0.4}
policies:
  - pruner: {instance_name: surgery}
    starting_epoch: 1
    ending_epoch: 4
"""
    net = mlp()
    plan = plan_for(parse_document(text), analyse(net, torch.zeros(2, 20)))
    assert plan.weights is not None
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    scheduler = CompressionScheduler(net, optimizer, plan, None, sparsify(net, plan.weights))
    assert scheduler.weights is not None
    whole = {i: net[i].weight.detach().clone() for i in (0, 2)}
    masked = {i: torch.zeros_like(w, dtype=torch.bool) for i, w in whole.items()}
    returned = 0
    for epoch in range(6):
        scheduler.on_epoch_begin(epoch)
        if epoch == 1:
            starts = {i: (weight.abs().mean(), weight.abs().std()) for i, weight in whole.items()}
        for i, sensitivity in ((0, 0.4), (2, 0.2)):
            if 1 <= epoch < 4:
                threshold = starts[i][0] + starts[i][1] * sensitivity * (1 + 0.5 * (epoch - 1))
                before, sizes = masked[i], whole[i].abs()
                masked[i] = (sizes < 0.9 * threshold) | (before & (sizes < 1.1 * threshold))
                returned += int((before & ~masked[i]).sum())
            assert torch.equal(scheduler.weights.masks.masked[f"{i}"], masked[i])
            assert torch.equal(net[i].weight == 0, masked[i])
        optimizer.zero_grad()
        net(torch.randn(8, 20)).square().sum().backward()
        scheduler.before_parameter_optimization(epoch, 0, 1, optimizer)
        optimizer.step()
        whole = {i: net[i].weight.detach().clone() for i in (0, 2)}
        scheduler.on_minibatch_end(epoch, 0, 1)
    assert returned
