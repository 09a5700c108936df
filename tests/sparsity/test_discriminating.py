"""Discrimination-aware channel pruning: parts of a network, what its classifiers see, and which channels are chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.sparsity.discriminating import WithClassifiers, choose_channels, parts_of, prunable_layers
from pocketprune.structure.channel_groups import analyse

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 4


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).eval()


def endless() -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield X, Y


def test_layers_that_alone_read_a_group_are_parted() -> None:
    layers = prunable_layers(analyse(chain(), X[:2]))
    assert [(layer.name, layer.group.size) for layer in layers] == [("2", 6), ("4", 8)]
    assert [[layer.name for layer in part] for part in parts_of(layers, 2)] == [["2"], ["4"]]
    with pytest.raises(UserError, match="3 given; the network has 2 such layers"):
        parts_of(layers, 3)


def test_a_network_with_classifiers_computes_the_same_and_lets_go_of_it() -> None:
    net = chain()
    extended = WithClassifiers(net, ["2", "4"], X[:2]).eval()
    assert torch.equal(extended(X), net(X))
    assert extended.auxiliary(1, Y).isfinite()
    extended.detach()
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("steps", [0, 3])
def test_channels_of_which_the_output_consists_are_chosen_and_others_are_zero(steps: int) -> None:
    dense = chain()
    with torch.no_grad():
        dense[2].weight[:, [0, 2, 5]] *= 1e-3  # these say next to nothing
    net = copy.deepcopy(dense)
    extended = WithClassifiers(net, ["2"], X[:2])
    masked = choose_channels(extended, 0, "2", dense, endless(), 3, steps=steps, lrn_rate=1e-3)
    assert masked.sum() == 3
    assert not net[2].weight[:, masked].any()
    assert torch.equal(net[0].weight, dense[0].weight)  # the layer alone is trained
    changed = not torch.equal(net[2].weight[:, ~masked], dense[2].weight[:, ~masked])
    assert changed == (steps > 0)


def test_the_first_channel_has_the_largest_gradient_of_the_joint_loss() -> None:
    dense = chain()
    net = copy.deepcopy(dense)
    extended = WithClassifiers(net, ["2"], X[:2]).eval()
    with torch.no_grad():
        net[2].weight.zero_()
    wanted, found = dense[:3](X), net[:3](X)
    extended(X)
    loss = (found - wanted).square().mean() / wanted.square().mean() + extended.auxiliary(0, Y)
    gradient = torch.autograd.grad(loss, net[2].weight)[0]
    with torch.no_grad():
        net[2].weight.copy_(dense[2].weight)
    masked = choose_channels(extended, 0, "2", dense, endless(), 1, steps=0, lrn_rate=1e-3)
    assert (~masked).nonzero().item() == gradient.square().sum((0, 2, 3)).argmax()
