"""Dependencies, the smaller network against the masked one, and counts, as in NNI's own tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets.mobilenet import mobilenet_v2
from nets.resnet_imagenet import resnet_imagenet
from nets.vgg import vgg16_bn
from pocketprune.compat.nni import ChannelDependency, L1FilterPruner, ModelSpeedup, SlimPruner, count_flops_params
from tests.compat.small import digits, small_net
from tests.structure.oracle import difference

IMAGES = torch.randn(2, 3, 32, 32)


def test_dependencies_of_resnet18() -> None:
    found = ChannelDependency(resnet_imagenet(num_classes=10, input_shape=(3, 32, 32)), IMAGES).dependency_sets
    stages = [{f"layer{k}.0.conv2", f"layer{k}.1.conv2", f"layer{k}.0.downsample.0"} for k in (2, 3, 4)]
    assert found == [{"conv1", "layer1.0.conv2", "layer1.1.conv2"}, *stages]


@pytest.mark.slow
def test_dependencies_of_mobilenet_v2() -> None:
    found = ChannelDependency(mobilenet_v2(num_classes=10, input_shape=(3, 32, 32)), IMAGES).dependency_sets
    blocks = [(2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12, 13), (14, 15, 16)]
    assert found == [{f"features.{block}.conv.2" for block in stage} for stage in blocks]


@pytest.mark.slow
def test_resnet18_after_speedup() -> None:
    net = without_shifts(resnet_imagenet(num_classes=10, input_shape=(3, 32, 32)))
    full = {name: module.out_channels for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    pruner = L1FilterPruner(net, [{"sparsity": 0.7, "op_types": ["Conv2d"]}], dependency_aware=True, dummy_input=IMAGES)
    pruner.compress()
    for names in ChannelDependency(net, IMAGES).dependency_sets:
        kept = [pruner.masks[name]["weight"].flatten(1).any(1).tolist() for name in sorted(names)]
        assert all(each == kept[0] for each in kept)
    masked = net(IMAGES)
    ModelSpeedup(net, IMAGES, pruner.masks).speedup_model()
    assert difference(net(IMAGES), masked) < 1e-5
    for name, channels in full.items():
        assert abs(net.get_submodule(name).out_channels - int(0.3 * channels)) <= 1


@pytest.mark.slow
def test_a_chain_has_no_dependencies() -> None:
    assert ChannelDependency(vgg16_bn(num_classes=10, input_shape=(3, 32, 32)), IMAGES).dependency_sets == []


class Joined(nn.Module):
    """Two pairs of convolutions, joined along the batch or the channels, then added or summed."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.convs, self.last = axis, nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in range(4)), None
        self.last = nn.Conv2d(4 if axis == 0 else 8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (conv(x) for conv in self.convs)
        joined = torch.cat([a, b], self.axis)
        return self.last(joined + torch.cat([c, d], 0)) if self.axis == 0 else self.last(joined)


def test_dependencies_of_joined_layers() -> None:
    assert ChannelDependency(Joined(1), IMAGES).dependency_sets == []
    assert ChannelDependency(Joined(0), IMAGES).dependency_sets == [{f"convs.{i}" for i in range(4)}]


def without_shifts(net: nn.Module) -> nn.Module:
    """A network as NNI's tests prepare it: what a batch norm adds is zero."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
            nn.init.zeros_(module.running_mean)
    return net.eval()


@pytest.mark.parametrize("dependent", [False, True])
def test_small_network_computes_what_the_masked_one_does(dependent: bool) -> None:
    net, images = without_shifts(small_net()), digits()[0][:8]
    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = L1FilterPruner(net, config, dependency_aware=dependent, dummy_input=images[:2])
    pruner.compress()
    masked = net(images).detach()
    stem = pruner.masks["conv"]["bias"].bool() | pruner.masks["conv2"]["bias"].bool()
    smaller = ModelSpeedup(net, images[:2], pruner.masks).speedup_model()
    assert smaller is net
    assert difference(net(images).detach(), masked) < 1e-6
    assert (net.conv.out_channels, net.conv1.out_channels, net.conv2.out_channels) == (stem.sum(), 6, stem.sum())
    assert (int(stem.sum()) == 4) is dependent  # else a channel lives as long as one of its layers keeps it


def test_masked_batch_norms_end_channels_and_masks_survive_training() -> None:
    net, (images, labels) = small_net(), (part[:32] for part in digits())
    nn.init.uniform_(net.bn1.weight)
    pruner = SlimPruner(net, [{"sparsity": 0.5, "op_types": ["BatchNorm2d"], "op_names": ["bn1"]}])
    pruner.compress()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    assert (net.bn1.weight == 0).sum() == (net.bn1.bias == 0).sum() == 6
    masked = net.eval()(images).detach()
    ModelSpeedup(net, images, pruner.masks).speedup_model()
    assert net.conv1.out_channels == net.conv2.in_channels == 6
    assert difference(net(images).detach(), masked) < 1e-6


class Widths(nn.Module):
    """A network with a width in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(-1, 8, 4, 4).relu())


def test_a_network_with_widths_in_its_code_is_speeded_up_in_place() -> None:
    net, x = Widths().eval(), torch.randn(2, 3, 4, 4)
    pruner = L1FilterPruner(net, [{"sparsity": 0.5, "op_names": ["a"]}])
    pruner.compress()
    masked = net(x).detach()
    ModelSpeedup(net, x, {"module.a": pruner.masks["a"]}).speedup_model()
    assert net.a.weight.shape == (4, 3, 1, 1)
    assert difference(net(x).detach(), masked) < 1e-6


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.LeakyReLU()
        self.up, self.pool = nn.UpsamplingBilinear2d(size=2), nn.AdaptiveAvgPool2d((2, 2))
        self.fc = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.up(self.act(self.bn(self.conv(x))))).flatten(1))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(5):
            x = self.shared(x)
        return x


def test_counter() -> None:
    assert count_flops_params(Resized(), torch.randn(4, 3, 2, 2), verbose=False, mode="full")[:2] == (610, 240)
    assert count_flops_params(Shared(), (1, 3, 2, 2), verbose=False)[:2] == (560, 50)


@pytest.mark.slow
def test_counter_on_resnet50() -> None:
    net = resnet_imagenet(num_classes=1000, input_shape=(3, 224, 224), resnet_size=50)
    assert count_flops_params(net, (1, 3, 224, 224), verbose=False)[:2] == (4_089_184_256, 25_503_912)
