"""Counts that do not depend on weights: those that NNI and Distiller publish, to the unit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import nn

from nets.resnet import resnet
from nets.vgg import STAGES
from pocketprune.compression.controller import compress
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import Schedule
from pocketprune.structure.cost import count_macs, count_params

EXAMPLE = torch.randn(2, 3, 32, 32)


def nni_vgg16() -> nn.Module:
    """NNI's VGG-16 for CIFAR-10: convolutions without bias, batch norms, two linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in STAGES:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*layers, *head)


def nni_flops(net: nn.Module) -> int:
    """NNI's count: MACs, two for each element of a batch norm, one for each linear layer's bias."""
    found = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            found.append(2 * output[0].numel())
        elif isinstance(module, nn.Linear):
            found.append(module.bias.numel())

    handles = [module.register_forward_hook(count) for module in net.modules()]
    net.eval()(EXAMPLE)
    for handle in handles:
        handle.remove()
    return count_macs(net, EXAMPLE) + sum(found)


@pytest.mark.parametrize(
    ("level", "params", "flops"),
    [
        (0.5, 3_820_010, 79_155_722),
        pytest.param(0.1, 12_187_336, 256_252_606, marks=pytest.mark.slow),
        pytest.param(0.3, 7_435_417, 155_477_470, marks=pytest.mark.slow),
    ],
)
def test_vgg16_with_all_convolutions_at_one_level(level: float, params: int, flops: int) -> None:
    net = nni_vgg16()
    rule = Rule(schedule=Schedule(name="one_shot", target=level))
    controller = compress(net, EXAMPLE, Policy(rules=(rule,), ignore=("Linear",)))
    controller.epoch_step()
    smaller = controller.remove()
    assert (count_params(smaller), nni_flops(smaller)) == (params, flops)


def layer_weights(net: nn.Module) -> int:
    """Distiller's count: the weights of convolutions and linear layers."""
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def resnet_cifar(size: int) -> nn.Module:
    return resnet(num_classes=10, input_shape=(3, 32, 32), resnet_size=size, resnet_version=1, resnet_shortcut="pad")


def filter_rank() -> Iterator[Rule]:
    """Distiller's schedule of that name for ResNet-56: levels of the first convolutions of blocks."""
    levels = {
        0.6: [f"layer1.{block}" for block in range(9)],
        0.5: [f"layer2.{block}" for block in (1, 2, 3, 4, 6, 7)],
        0.1: ["layer3.1"],
        0.3: [f"layer3.{block}" for block in (2, 3, 5, 6, 7, 8)],
    }
    for level, blocks in levels.items():
        groups = tuple(f"{block}.conv1" for block in blocks)
        yield Rule(groups=groups, schedule=Schedule(name="one_shot", target=level))


def test_resnets_of_distiller() -> None:
    """Distiller's networks have projections where these pad: a 1x1 convolution from stage to stage."""
    found = []
    for size in (20, 56):
        net = resnet_cifar(size)
        found.append((count_macs(net, EXAMPLE), layer_weights(net)))
    assert found == [(40_551_040, 268_336), (125_485_696, 848_944)]
    projections = [(2 * a * a, 2 * a * a * side * side) for a, side in ((16, 16), (32, 8))]
    extra = tuple(sum(values) for values in zip(*projections, strict=True))
    assert [(macs + extra[1], weights + extra[0]) for macs, weights in found] == [
        (40_813_184, 270_896),
        (125_747_840, 851_504),
    ]


def test_filter_rank_on_resnet56() -> None:
    net = resnet_cifar(56)
    controller = compress(net, EXAMPLE, Policy(rules=tuple(filter_rank())))
    controller.epoch_step()
    smaller = controller.remove()
    projections = sum(2 * a * a for a in (16, 32)), sum(2 * a * a * s * s for a, s in ((16, 16), (32, 8)))
    assert layer_weights(smaller) + projections[0] == 634_640
    assert count_macs(smaller, EXAMPLE) + projections[1] == 78_856_832
    assert controller.statistics().macs == count_macs(smaller, EXAMPLE)
    widths = [m.out_channels for m in smaller.layer1.modules() if isinstance(m, nn.Conv2d)]
    assert {pair for pair in pairwise(widths)} == {(7, 16), (16, 7)}


class NncfsNetwork(nn.Module):
    """The network of NNCF's test of counts, with its weights: channel i of a layer is its base plus i."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 2), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
        self.up = nn.ConvTranspose2d(32, 64, 3, 2)
        self.linear, self.norm, self.bn3 = nn.Linear(3136, 128), nn.LayerNorm(128), nn.BatchNorm1d(128)
        self.last = nn.Conv2d(128, 1, 1)
        with torch.no_grad():
            for layer, base in ((self.conv1, 0), (self.depthwise, 0), (self.conv2, 20)):
                rows = torch.arange(float(layer.out_channels)).view(-1, 1, 1, 1) + base
                layer.weight.copy_(rows + torch.eye(layer.kernel_size[0]))
            self.up.weight.fill_(3)
            self.up.weight[0] += torch.arange(64.0).view(-1, 1, 1)
            self.linear.weight.copy_(torch.arange(128.0).view(-1, 1).expand(128, 3136))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn2(self.conv2(self.depthwise(self.bn1(self.conv1(x)).relu()))).relu()
        x = self.bn3(self.norm(self.linear(self.up(x).relu().flatten(1))))
        return self.last(x.unflatten(1, (-1, 1, 1)))


def nncf_counts(net: nn.Module) -> tuple[int, int]:
    """NNCF's FLOPs, two for each weight at each place of the output, and its weights, without biases and norms."""
    found = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        places = output[0].numel() // output.shape[1]
        found.append((2 * module.weight.numel() * places, module.weight.numel()))

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, kinds)]
    net.eval()(torch.randn(2, 1, 8, 8))
    for handle in handles:
        handle.remove()
    flops, weights = (sum(values) for values in zip(*found, strict=True))
    return flops, weights


@pytest.mark.parametrize(
    ("policy", "widths", "counts"),
    [
        ({"channels": 0.5}, [8, 16, 32, 64], (679_888, 106_280)),
        (
            {"channels": 0.5, "criterion": "l2", "ranking": "global", "normalise": "norm", "floor": 0},
            [14, 30, 35, 41],
            (1_146_640, 83_768),
        ),
        ({"channels": 0.4, "multiple": 8}, [16, 24, 40, 80], (1_236_160, 169_184)),
    ],
)
def test_nncfs_network_with_its_layer_norm(
    policy: dict[str, object], widths: list[int], counts: tuple[int, int]
) -> None:
    net, example = NncfsNetwork(), torch.randn(2, 1, 8, 8)
    assert nncf_counts(net) == (2_705_824, 424_784)
    controller = compress(net, example, {**policy, "schedule": "one_shot", "allow_inexact": True})
    controller.epoch_step()
    smaller = controller.remove()
    assert [len(kept) for kept in controller.kept().values()] == widths
    assert nncf_counts(smaller) == counts


def test_channels_that_a_layer_norm_mixes_stay_unless_asked_for() -> None:
    net, example = NncfsNetwork(), torch.randn(4, 1, 8, 8)
    assert "linear" not in compress(net, example, {}).kept()
    controller = compress(net, example, {"schedule": "one_shot", "allow_inexact": True})
    controller.epoch_step()
    assert controller.remove(refit=[example]).linear.out_features == 64
