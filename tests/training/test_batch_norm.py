"""Batch-norm statistics shifted by what pruning changed."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pocketprune.training.batch_norm import shift_batch_norm


def seen(net: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and variance of the first layer's output."""
    with torch.no_grad():
        y = net[0](batch)
    return y.mean((0, 2, 3)), y.var((0, 2, 3))


def test_statistics_are_the_dense_ones_plus_the_change_on_the_same_images() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    batch = torch.randn(8, 3, 5, 5, generator=generator)
    norm = dense[1]
    norm.running_mean.copy_(torch.randn(4, generator=generator))
    norm.running_var.copy_(torch.rand(4, generator=generator) + 0.5)
    before = copy.deepcopy(dense.state_dict())
    pruned = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    assert shift_batch_norm(pruned, dense, [batch], {"1": [0, 3]}) == 1
    (mean, var), (new_mean, new_var) = seen(dense, batch), seen(pruned, batch)
    assert torch.allclose(pruned[1].running_mean, before["1.running_mean"][[0, 3]] + new_mean - mean[[0, 3]], atol=1e-5)
    assert torch.allclose(pruned[1].running_var, before["1.running_var"][[0, 3]] * new_var / var[[0, 3]], rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


def test_a_network_that_is_the_same_keeps_its_statistics() -> None:
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3))
    dense[1].running_mean.copy_(torch.arange(4.0))
    same = copy.deepcopy(dense)
    shift_batch_norm(same, dense, iter([torch.randn(6, 3, 4, 4), torch.randn(2, 3, 4, 4)]))
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(same[1], name), getattr(dense[1], name), atol=1e-6)
    assert same[1].momentum == 0.3
