"""The CIFAR residual networks: PocketFlow's version 2 and He et al.'s version 1."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets import create_net


def _resnet(version: int, shortcut: str, size: int = 20) -> nn.Module:
    torch.manual_seed(0)
    net = create_net(
        "resnet",
        num_classes=10,
        input_shape=(3, 32, 32),
        resnet_size=size,
        resnet_version=version,
        resnet_shortcut=shortcut,
    )
    for module in net.modules():  # statistics and affine parameters that would show a misplaced batch norm
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return net.eval()


def test_the_default_has_pocketflows_22_convolutions() -> None:
    net = create_net("resnet", num_classes=10, input_shape=(3, 32, 32))
    convs = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    kernels = [m.kernel_size[0] for m in convs.values()]
    assert len(convs) == 22
    assert [i for i, kernel in enumerate(kernels) if kernel == 1] == [1, 8, 15]
    assert [m.in_channels for m in convs.values()] == [3, *[16] * 9, *[32] * 7, *[64] * 5]
    assert [name for name in convs][:4] == ["conv1", "layer1.0.shortcut", "layer1.0.conv1", "layer1.0.conv2"]


@pytest.mark.parametrize(("size", "expected"), [(8, 10), (20, 22), (32, 34), (56, 58)])
def test_number_of_convolutions(size: int, expected: int) -> None:
    for version in (1, 2):
        net = _resnet(version, "projection", size)
        assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == expected
        net = _resnet(version, "pad", size)
        assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == expected - 3


def _functional_v1(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al.'s ResNet-20 with padded shortcuts, straight from the parameters by their public names."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        fields = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{bn}.{field}"] for field in fields))

    x = F.relu(conv_bn(x, "conv1", "bn1"))
    for stage in (1, 2, 3):
        for i in range(3):
            stride, at = (2 if stage > 1 and i == 0 else 1), f"layer{stage}.{i}"
            shortcut = x
            if stride == 2:
                c = x.shape[1] // 2
                shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c, c))
            out = F.relu(conv_bn(x, f"{at}.conv1", f"{at}.bn1", stride))
            x = F.relu(conv_bn(out, f"{at}.conv2", f"{at}.bn2") + shortcut)
    return F.linear(F.avg_pool2d(x, x.shape[3]).flatten(1), state["linear.weight"], state["linear.bias"])


@torch.no_grad()
def test_version_1_with_padding_is_the_common_resnet_20() -> None:
    net = _resnet(1, "pad")
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(net(images), _functional_v1(net.state_dict(), images), rtol=1e-5, atol=1e-5)
    prefixes = {name.split(".")[0] for name in net.state_dict()}
    assert prefixes == {"conv1", "bn1", "layer1", "layer2", "layer3", "linear"}
    assert sum(p.numel() for p in net.parameters()) == 269_722


@torch.no_grad()
def test_a_block_of_version_2_is_pre_activated() -> None:
    block = _resnet(2, "projection").layer2[0]
    x = torch.randn(2, 16, 8, 8)
    active = F.relu(block.bn1(x))
    inner = F.relu(block.bn2(F.conv2d(active, block.conv1.weight, stride=2, padding=1)))
    shortcut = F.conv2d(active, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), F.conv2d(inner, block.conv2.weight, padding=1) + shortcut)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_every_variant_exports_and_reloads(version: int, shortcut: str) -> None:
    net, other = _resnet(version, shortcut, 8), _resnet(version, shortcut, 8)
    nn.init.zeros_(other.linear.weight)
    other.load_state_dict(net.state_dict(), strict=True)
    exported = torch.export.export(
        other, (torch.randn(2, 3, 32, 32),), strict=False, dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    images = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(exported.module()(images), net(images))
