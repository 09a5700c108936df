"""A check of a network on two images, before any work is done with it."""

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.registry import blaming


def check_outputs(net: nn.Module, images: Tensor, source: str) -> int:
    """Return the number of classes of a network that turns images (b, C, H, W) into logits (b, classes).

    The random generators stay as they are.

    Args:
        net: the network.
        images: a batch.
        source: the beginning of an error's message.

    Raises:
        UserError: the network fails on the images, or its outputs are not logits.
    """
    given = f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
    cuda = [images.device] if images.is_cuda else []
    with (
        blaming(f"{source}: the network fails on images {given}"),
        evaluation_mode(net),
        torch.no_grad(),
        torch.random.fork_rng(cuda),
    ):
        logits = net(images.clone())
    if not isinstance(logits, Tensor):
        raise UserError(f"{source}: the network returns a {type(logits).__name__}; expected are logits, one tensor")
    if logits.dim() != 2 or len(logits) != len(images) or not logits.is_floating_point():
        found = f"{tuple(logits.shape)} {str(logits.dtype).removeprefix('torch.')}"
        raise UserError(f"{source}: its outputs for {len(images)} images are {found}; expected: (images, classes) real")
    return logits.shape[1]
