"""The settings of everything that trains: the dense network, fine-tuning, a teacher.

Names are PocketFlow's and so are the defaults, where it has them.
"""

from dataclasses import dataclass

from config.settings import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Concern, setting


@dataclass(frozen=True)
class TrainConfig(Concern):
    """Training and fine-tuning"""

    lrn_rate_init: float | None = setting(
        None, "learning rate at the start, for a batch of --batch_size_norm images", accept=POSITIVE
    )
    batch_size_norm: int | None = setting(
        None, "batch size that --lrn_rate_init is meant for; other sizes scale it", accept=COUNT
    )
    optimizer: str = setting(
        "sgd",
        "sgd (with --momentum) or adam; for a few epochs after pruning adam at 0.002 is the better",
        accept=("sgd", "adam"),
    )
    momentum: float = setting(0.9, "momentum of SGD", accept=FRACTION)
    loss_w_dcy: float | None = setting(None, "weight decay", accept=NOT_NEGATIVE)
    nb_epochs: int | None = setting(None, "epochs of the full schedule", accept=COUNT)
    nb_epochs_rat: float = setting(
        1.0,
        "share of the full schedule that the learner trains for; with --learner channel this is its "
        "fine-tuning, and 0 means none",
        accept=NOT_NEGATIVE,
    )
    lrn_rate_dcy: str = setting(
        "piecewise",
        "how the learning rate falls: piecewise (in the network's own steps), cosine or constant",
        accept=("piecewise", "cosine", "constant"),
    )
    warmup: float = setting(0.0, "cosine: share of the schedule in which the rate first rises", accept=FRACTION)
    label_smoothing: float = setting(0.0, "share of each label spread evenly over all classes", accept=FRACTION)
    ema_decay: float = setting(
        0.0, "end with a moving average of the weights, of this decay a step; 0: without", accept=FRACTION
    )
    clip_norm: float = setting(0.0, "largest norm of the gradient; 0: no limit", accept=NOT_NEGATIVE)
    amp: str = setting("off", "bf16: compute in bfloat16 where that is safe", accept=("off", "bf16"))
    tf32: bool = setting(False, "TensorFloat-32 products while training on a GPU")
    channels_last: bool | None = setting(
        None, "channels-last memory layout while training; its own: on a CPU, or with --amp bf16, for the nets above"
    )
    compile: bool = setting(False, "train through torch.compile")
    sync_bn: bool = setting(False, "batch-norm statistics over all processes, on GPUs")
    summ_step: int = setting(100, "steps between two points of the training curves", accept=COUNT)
    save_step: int = setting(
        1000, "steps between two checkpoints; a killed run loses no more when started again", accept=COUNT
    )
    keep_checkpoints: int = setting(3, "checkpoints of each phase that are kept", accept=COUNT)


@dataclass(frozen=True)
class DistillationConfig(Concern):
    """Distillation, in every learner that trains"""

    enbl_dst: bool = setting(
        False, "also learn a teacher's softened outputs: the dense network's, unless --dst_checkpoint names another"
    )
    loss_w_dst: float = setting(4.0, "weight of the distance to the teacher", accept=NOT_NEGATIVE)
    tempr_dst: float = setting(4.0, "temperature that softens both outputs", accept=POSITIVE)
    dst_scale_gradient: bool = setting(
        True,
        "multiply the distance by the squared temperature, so that --loss_w_dst alone sets its weight; "
        "PocketFlow does not",
    )
    dst_checkpoint: str = setting("", "state dict of the teacher; none: the dense network teaches")
    dst_net: str = setting("", "the teacher's network, as for --net; none: the same as --net")
    dst_resnet_size: int | None = setting(None, "the teacher's --resnet_size", accept=COUNT)
