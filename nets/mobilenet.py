"""MobileNets: v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), of any width.

For images under 64 pixels the first two of the five halvings are left out, so that 32x32 pixels give a 4x4 map and not
1x1. The names of v2 are torchvision's.
"""

from torch import Tensor, nn

from nets.blocks import InputShape, initialise, require_side
from pocketprune.common.errors import UserError

V1_LAYERS = (  # output channels, stride
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
V2_STAGES = (  # expansion, output channels, blocks, stride (table 2 of the paper)
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def _conv_bn(
    activation: type[nn.Module] | None, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(c_out)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class DepthwiseSeparable(nn.Sequential):
    """A depthwise 3x3 convolution, then a pointwise one, each with batch norm and ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.add_module("depthwise", _conv_bn(nn.ReLU, c_in, c_in, 3, stride, groups=c_in))
        self.add_module("pointwise", _conv_bn(nn.ReLU, c_in, c_out, 1))


class InvertedResidual(nn.Module):
    """A pointwise expansion, a depthwise 3x3 convolution and a linear pointwise projection.

    The input is added where the shapes are equal.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and c_in == c_out
        hidden = c_in * expansion
        expand = [_conv_bn(nn.ReLU6, c_in, hidden, 1)] if expansion != 1 else []
        depthwise = _conv_bn(nn.ReLU6, hidden, hidden, 3, stride, groups=hidden)
        self.conv = nn.Sequential(*expand, depthwise, *_conv_bn(None, hidden, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """The network (N, C, H, W) -> logits (N, num_classes), from its features."""

    def __init__(self, features: list[nn.Module], last: int, dropout: float, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def mobilenet_v1(*, num_classes: int, input_shape: InputShape, mobilenet_depth_mult: float = 1.0) -> MobileNet:
    """Return a MobileNet-v1.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        mobilenet_depth_mult: factor of every layer's channels, of which at least 8 remain.

    Raises:
        UserError: the factor is not positive, or the images have fewer than 8x8 pixels.
    """

    def scaled(channels: int) -> int:
        return max(8, int(channels * mobilenet_depth_mult))

    strides = _strides("mobilenet_v1", input_shape, mobilenet_depth_mult, [2, *(s for _, s in V1_LAYERS)])
    last = scaled(32)
    features: list[nn.Module] = [_conv_bn(nn.ReLU, input_shape[0], last, 3, strides[0])]
    for (channels, _), stride in zip(V1_LAYERS, strides[1:], strict=True):
        features.append(DepthwiseSeparable(last, scaled(channels), stride))
        last = scaled(channels)
    return MobileNet(features, last, 0.001, num_classes)


def mobilenet_v2(*, num_classes: int, input_shape: InputShape, mobilenet_depth_mult: float = 1.0) -> MobileNet:
    """Return a MobileNet-v2.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        mobilenet_depth_mult: factor of every layer's channels, which are then rounded to multiples of 8.

    Raises:
        UserError: the factor is not positive, or the images have fewer than 8x8 pixels.
    """

    def scaled(channels: int, factor: float = mobilenet_depth_mult) -> int:
        nearest = max(8, int(channels * factor + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * channels * factor else nearest + 8

    strides = _strides("mobilenet_v2", input_shape, mobilenet_depth_mult, [2, *(s for *_, s in V2_STAGES)])
    last = scaled(32)
    features: list[nn.Module] = [_conv_bn(nn.ReLU6, input_shape[0], last, 3, strides[0])]
    for (expansion, channels, blocks, _), stride in zip(V2_STAGES, strides[1:], strict=True):
        for i in range(blocks):
            features.append(InvertedResidual(last, scaled(channels), stride if i == 0 else 1, expansion))
            last = scaled(channels)
    head = scaled(1280, max(1.0, mobilenet_depth_mult))  # narrow networks keep the full head (section 5)
    features.append(_conv_bn(nn.ReLU6, last, head, 1))
    return MobileNet(features, head, 0.2, num_classes)


def _strides(net: str, input_shape: InputShape, depth_mult: float, strides: list[int]) -> list[int]:
    """Return the strides for this input, after a check of its size and of the factor."""
    require_side(net, input_shape, 8)
    if not 0 < depth_mult < float("inf"):
        raise UserError(f"--mobilenet_depth_mult={depth_mult}: accepted: a number above 0")
    if min(input_shape[1:]) >= 64:
        return strides
    skipped = [i for i, stride in enumerate(strides) if stride == 2][:2]
    return [1 if i in skipped else stride for i, stride in enumerate(strides)]
