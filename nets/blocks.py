"""What several networks share: initialisation, small constructors, checks on the input."""

from collections.abc import Sequence

from torch import nn

from pocketprune.common.errors import UserError

InputShape = tuple[int, int, int]

WIDTHS = (16, 32, 64)  # channels in the three stages of a CIFAR network


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the map's size at stride 1. It has no bias, as a batch norm follows."""
    return nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)


def initialise(net: nn.Module) -> None:
    """Initialise every convolution as He et al. (2015). Batch norms and linear layers keep torch's initialisation."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_side(net: str, input_shape: InputShape, smallest: int) -> None:
    """Raise UserError if images are smaller than the network's total stride needs."""
    _, height, width = input_shape
    if min(height, width) < smallest:
        side = f"{smallest}x{smallest}"
        raise UserError(f"--net={net}: needs images of {side} pixels or more, not {height}x{width}")


def require_choice(flag: str, value: object, accepted: Sequence[object]) -> None:
    """Raise UserError if `value` is not one of `accepted`."""
    if value not in accepted:
        raise UserError(f"{flag}={value}: accepted: {', '.join(map(str, accepted))}")


def blocks_per_stage(flag: str, size: int) -> int:
    """Return n of a three-stage CIFAR network of 6n+2 layers.

    Raises:
        UserError: there is no such n.
    """
    if size < 8 or (size - 2) % 6:
        raise UserError(f"{flag}={size}: accepted: 6n+2 (8, 14, 20, 32, 44, 56, 110, ...)")
    return (size - 2) // 6
