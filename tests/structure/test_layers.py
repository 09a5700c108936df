"""The numbered prunable layers: PocketFlow's order, what can be removed and why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nets
import pocketprune
from pocketprune import UserError, list_layers


def test_preactivation_resnet20_has_pocketflows_22_entries_shortcuts_first() -> None:
    net = nets.create_net("resnet", num_classes=10, input_shape=(3, 32, 32), resnet_size=20)
    names = [layer.name for layer in list_layers(net, torch.randn(2, 3, 32, 32))]
    assert len(names) == 22
    for stage in (1, 2, 3):
        first = next(i for i, name in enumerate(names) if name.startswith(f"layer{stage}.0"))
        assert "shortcut" in names[first]
        assert names[first + 1 : first + 3] == [f"layer{stage}.0.conv1", f"layer{stage}.0.conv2"]


def test_first_layer_counts_and_stays_whole() -> None:
    first = list_layers(nets.create_net("plain", num_classes=10, input_shape=(3, 16, 16)), torch.randn(2, 3, 16, 16))[0]
    assert not first.removable
    assert "network's input" in first.reason


@pytest.mark.parametrize(("shared_input", "way"), [("sample", "sample"), ("couple", "couple"), ("keep", "fixed")])
def test_shared_inputs_are_treated_as_asked(shared_input: str, way: str) -> None:
    net = nets.create_net("resnet", num_classes=10, input_shape=(3, 16, 16), resnet_size=8)
    ways = {layer.name: layer.way for layer in list_layers(net, torch.randn(2, 3, 16, 16), shared_input)}
    assert ways["layer1.0.conv1"] == way
    assert ways["layer1.0.conv2"] == "private"


def test_depthwise_layers_are_not_listed_and_carry_their_channels() -> None:
    net = nets.create_net("mobilenet_v1", num_classes=10, input_shape=(3, 32, 32))
    layers = list_layers(net, torch.randn(2, 3, 32, 32))
    assert len(layers) == 14  # the stem and thirteen pointwise convolutions
    assert all(layer.kernel == (1, 1) for layer in layers[1:])
    assert all(layer.way == "private" for layer in layers[1:])


class TwiceTheSame(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.again(self.first(x))))


def test_a_layer_used_twice_and_one_that_writes_the_output_stay_whole() -> None:
    layers = {layer.name: layer for layer in list_layers(TwiceTheSame(), torch.randn(2, 3, 8, 8))}
    assert "several places" in layers["again"].reason
    assert "last layer" in layers["last"].reason


def test_unknown_way_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'couple'"):
        list_layers(TwiceTheSame(), torch.randn(2, 3, 8, 8), "coupled")


def test_layers_carry_their_macs() -> None:
    net = nets.create_net("plain", num_classes=10, input_shape=(3, 16, 16))
    x = torch.randn(2, 3, 16, 16)
    classifier = 64 * 10
    assert sum(layer.macs for layer in list_layers(net, x)) + classifier == pocketprune.count_macs(net, x)
