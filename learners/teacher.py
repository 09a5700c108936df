"""The teacher of a distillation: the dense network, or the one that --dst_checkpoint and --dst_net name."""

from pathlib import Path

from torch import nn

from learners.context import RunContext
from nets import check_outputs, create_net
from pocketprune.common.errors import UserError
from pocketprune.deploy import state_dict


def named_teacher(run: RunContext) -> nn.Module | None:
    """Return the network of --dst_checkpoint, on the run's device; None where none is asked for or named.

    Raises:
        UserError: --dst_net without --dst_checkpoint, a checkpoint that does not fit, or a network whose outputs for
            b images are not (b, classes).
    """
    flags, net, dataset = run.config.distillation, run.config.net, run.dataset
    if not flags.enbl_dst:
        return None
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
    teacher = state_dict.load_net(teacher, path, source=f"--dst_checkpoint={path}", flag="--dst_net").to(run.device)
    source = f"--dst_net={flags.dst_net or net.net}"
    classes = check_outputs(teacher, run.example, source)
    if classes != dataset.num_classes:
        raise UserError(f"{source}: its outputs tell {classes} classes apart, expected {dataset.num_classes}")
    return teacher


def teacher_of(run: RunContext, named: nn.Module | None, dense: nn.Module) -> nn.Module | None:
    """Return the teacher of a run that prunes: the named one, or else the dense network; None without distillation."""
    if not run.config.distillation.enbl_dst:
        return None
    return dense if named is None else named
