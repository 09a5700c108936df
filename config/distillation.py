"""The settings of distillation. Names and defaults are PocketFlow's, where it has them."""

from dataclasses import dataclass

from config.settings import Concern, setting
from pocketprune.common.options import NOT_NEGATIVE, POSITIVE, Interval


@dataclass(frozen=True)
class DistillationConfig(Concern):
    """The settings of learning from a teacher."""

    title = "Distillation, in every learner that trains"

    enbl_dst: bool = setting(
        False, "also learn a teacher's softened outputs: the dense network's, unless --dst_checkpoint names another"
    )
    loss_w_dst: float = setting(4.0, "weight of the distance to the teacher", accept=NOT_NEGATIVE, argument="weight")
    tempr_dst: float = setting(4.0, "temperature that softens both outputs", accept=POSITIVE, argument="temperature")
    dst_scale_gradient: bool = setting(
        True,
        "multiply the distance by the squared temperature, so that --loss_w_dst alone sets its weight; "
        "PocketFlow does not",
    )
    dst_checkpoint: str = setting("", "state dict of the teacher; none: the dense network teaches", argument="teacher")
    dst_net: str = setting("", "the teacher's network, as for --net; none: the same as --net")
    dst_resnet_size: int | None = setting(None, "the teacher's --resnet_size", accept=Interval(1, 10000, whole=True))
