"""The networks: `NETS`, name -> builder, and `create_net`, which also takes a caller's own builder."""

from collections.abc import Callable

from torch import nn

from nets.checking import check_outputs
from nets.lenet import lenet
from nets.mobilenet import mobilenet_v1, mobilenet_v2
from nets.plain import plain
from nets.resnet import resnet
from nets.resnet_imagenet import resnet_imagenet
from nets.vgg import vgg16_bn
from pocketprune.common.errors import UserError
from pocketprune.common.registry import blaming, call_accepted, resolve

__all__ = ["NETS", "check_outputs", "create_net"]

NETS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "plain": plain,
    "resnet": resnet,
    "resnet_imagenet": resnet_imagenet,
    "vgg16_bn": vgg16_bn,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
}


def create_net(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    resnet_size: int | None = None,
    resnet_version: int | None = None,
    resnet_shortcut: str | None = None,
    mobilenet_depth_mult: float | None = None,
) -> nn.Module:
    """Return a newly initialised network, (N, *input_shape) -> logits (N, num_classes).

    A builder receives those of the keywords that it accepts. None leaves it its own default.

    Args:
        name: a key of `NETS`, `path/file.py:callable` or `module:callable`.
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        resnet_size: layers of a residual or plain network.
        resnet_version: 1 for post-activation blocks, 2 for pre-activation blocks.
        resnet_shortcut: the shortcut of blocks that change the shape.
        mobilenet_depth_mult: factor of a MobileNet's channels.

    Raises:
        UserError: the name is unknown, a value is not offered, the input is too small, or the callable fails or returns
            no module.
    """
    builder = resolve("--net", name, NETS)
    options = {
        "num_classes": num_classes,
        "input_shape": tuple(input_shape),
        "resnet_size": resnet_size,
        "resnet_version": resnet_version,
        "resnet_shortcut": resnet_shortcut,
        "mobilenet_depth_mult": mobilenet_depth_mult,
    }
    with blaming(f"--net={name}: the callable failed"):
        net = call_accepted(builder, options)
    if not isinstance(net, nn.Module):
        raise UserError(f"--net={name}: must return a torch.nn.Module, not {type(net).__name__}")
    return net
