"""Shapes, sizes, exportability and trainability of every network."""

import pytest
import torch
from torch import nn

from nets import NETS, create_net

SMALL = {"lenet": (1, 8, 8), "plain": (1, 8, 8), "resnet": (1, 8, 8)}
INPUTS = {name: SMALL.get(name, (3, 32, 32)) for name in NETS}


def _create(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_net(name, num_classes=10, input_shape=INPUTS[name], **options)


def _parameters(name: str, side: int, **options: object) -> int:
    with torch.device("meta"):
        net = create_net(name, num_classes=1000, input_shape=(3, side, side), **options)
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_export_with_a_dynamic_batch(name: str) -> None:
    net = _create(name).eval()
    exported = torch.export.export(
        net,
        (torch.randn(2, *INPUTS[name]),),
        strict=False,
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
    )
    images = torch.randn(5, *INPUTS[name])
    with torch.no_grad():
        assert torch.equal(exported.module()(images), net(images))


@pytest.mark.parametrize("name", NETS)
def test_modules_are_listed_in_the_order_they_run(name: str) -> None:
    net = _create(name).eval()
    ran: list[str] = []
    layers = {key: m for key, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for key, module in layers.items():
        module.register_forward_hook(lambda *_, key=key: ran.append(key))
    net(torch.randn(2, *INPUTS[name]))
    assert ran == list(layers)


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name: str) -> None:
    net = _create(name)
    net(torch.randn(4, *INPUTS[name])).logsumexp(1).sum().backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("side", [8, 28, 32, 37])
@pytest.mark.parametrize("name", ["lenet", "plain", "resnet", "mobilenet_v1", "mobilenet_v2"])
def test_small_images(name: str, side: int) -> None:
    net = create_net(name, num_classes=4, input_shape=(1, side, side)).eval()
    assert net(torch.randn(2, 1, side, side)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "options", "expected"),  # as published for 1,000 classes
    [
        ("resnet_imagenet", {"resnet_size": 18}, 11_689_512),
        ("resnet_imagenet", {"resnet_size": 34}, 21_797_672),
        ("resnet_imagenet", {"resnet_size": 50}, 25_557_032),
        ("vgg16_bn", {}, 138_365_992),
        ("mobilenet_v1", {}, 4_231_976),
        ("mobilenet_v2", {}, 3_504_872),
        ("mobilenet_v2", {"mobilenet_depth_mult": 0.5}, 1_968_680),
        ("mobilenet_v2", {"mobilenet_depth_mult": 1.4}, 6_108_776),
    ],
)
def test_parameter_counts(name: str, options: dict[str, object], expected: int) -> None:
    assert _parameters(name, 224, **options) == expected


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_small_images_keep_a_map_before_the_pooling(name: str) -> None:
    net = _create(name).eval()
    assert net.features(torch.randn(1, 3, 32, 32)).shape[2:] == (4, 4)
    large = create_net(name, num_classes=10, input_shape=(3, 224, 224)).eval()
    assert large.features(torch.randn(1, 3, 224, 224)).shape[2:] == (7, 7)


def test_the_multiplier_scales_every_layer() -> None:
    half = _create("mobilenet_v1", mobilenet_depth_mult=0.5)
    widths = [m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert widths == [16, 32, 64, 64, 128, 128, *[256] * 6, 512, 512]


def test_names_that_public_weights_use() -> None:
    def names(name: str, **options: object) -> set[str]:
        return set(_create(name, **options).state_dict())

    assert {"features.0.weight", "features.41.running_var", "classifier.6.bias"} <= names("vgg16_bn")
    bottleneck = {"layer1.0.downsample.1.bias", "layer4.2.conv3.weight", "bn1.running_mean", "fc.weight"}
    assert bottleneck <= names("resnet_imagenet", resnet_size=50)
    inverted = {"features.1.conv.1.weight", "features.17.conv.3.bias", "features.18.0.weight"}
    assert inverted | {"classifier.1.bias"} <= names("mobilenet_v2")
