"""The teacher of a distillation: the dense network, or the one that --dst_checkpoint and --dst_net name."""

from pathlib import Path

import torch
from torch import Tensor, nn

from config import Config
from datasets import Dataset
from learners import state_dict
from nets import create_net
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode


def named_teacher(config: Config, dataset: Dataset, example: Tensor) -> nn.Module | None:
    """The network of --dst_checkpoint, on the example's device; None where none is named.

    Raises UserError for --dst_net without --dst_checkpoint, for a checkpoint that does not fit, and for a network
    whose outputs for `example` (b, C, H, W) are not (b, classes).
    """
    flags, net = config.distillation, config.net
    if not flags.dst_checkpoint:
        if flags.dst_net or flags.dst_resnet_size:
            raise UserError("--dst_net and --dst_resnet_size: need the teacher's weights, --dst_checkpoint")
        return None
    teacher = create_net(
        flags.dst_net or net.net,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        resnet_size=flags.dst_resnet_size or (None if flags.dst_net else net.resnet_size),
        resnet_version=net.resnet_version,
        resnet_shortcut=net.resnet_shortcut,
        mobilenet_depth_mult=net.mobilenet_depth_mult,
    )
    path = Path(flags.dst_checkpoint)
    state_dict.load_into(teacher, path, source=f"--dst_checkpoint={path}", flag="--dst_net")
    teacher = teacher.to(example.device)
    with evaluation_mode(teacher), torch.no_grad():
        shape = tuple(teacher(example).shape)
    expected = (len(example), dataset.num_classes)
    if shape != expected:
        raise UserError(
            f"--dst_net={flags.dst_net}: its outputs for {len(example)} images have shape {shape}, expected {expected}"
        )
    return teacher
