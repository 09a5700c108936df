"""The settings of everything that trains: the dense network, and fine-tuning.

Names and defaults are PocketFlow's, where it has them.
"""

from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.common.options import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE
from pocketprune.training.state import TrainSettings


@dataclass(frozen=True)
class TrainConfig(Concern):
    """The settings of training and fine-tuning."""

    title = "Training and fine-tuning"

    lrn_rate_init: float | None = setting(
        None,
        "learning rate at the start, for a batch of --batch_size_norm images",
        accept=POSITIVE,
        argument="lrn_rate",
    )
    batch_size_norm: int | None = setting(
        None, "batch size that --lrn_rate_init is meant for; other sizes scale it", accept=COUNT
    )
    optimizer: str = flag_of(
        TrainSettings,
        "optimizer",
        teach="sgd (with --momentum) or adam; for a few epochs after pruning adam at 0.002 is the better",
    )
    momentum: float = flag_of(TrainSettings, "momentum")
    loss_w_dcy: float | None = setting(None, "weight decay", accept=NOT_NEGATIVE, argument="weight_decay")
    nb_epochs: int | None = setting(None, "epochs of the full schedule", accept=COUNT, argument="epochs")
    nb_epochs_rat: float = setting(
        1.0,
        "share of the full schedule that the learner trains for; with --learner channel this is its "
        "fine-tuning, and 0 means none",
        accept=NOT_NEGATIVE,
    )
    lrn_rate_dcy: str | None = setting(
        None,
        "how the learning rate falls: piecewise (in the network's own steps), cosine or constant; its own: piecewise, "
        "or what --ft_recipe says",
        accept=("piecewise", "cosine", "constant"),
    )
    warmup: float = setting(0.0, "cosine: share of the schedule in which the rate first rises", accept=FRACTION)
    ft_recipe: str = setting(
        "fitted",
        "how a network is trained that was pruned before: fitted (a first rate that suits the length, a warm-up, half "
        "a cosine, gradients clipped to a norm of 1; --lrn_rate_init, --lrn_rate_dcy, --warmup and --clip_norm change "
        "these) or pocketflow (like a new one, its schedule shortened)",
        accept=("fitted", "pocketflow"),
    )
    label_smoothing: float = flag_of(TrainSettings, "label_smoothing")
    ema_decay: float = flag_of(TrainSettings, "ema_decay")
    clip_norm: float = flag_of(TrainSettings, "clip_norm")
    amp: str = flag_of(TrainSettings, "amp")
    tf32: bool = flag_of(TrainSettings, "tf32")
    channels_last: bool | None = setting(
        None, "channels-last memory layout while training; its own: on a CPU, or with --amp bf16, for the nets above"
    )
    compile: bool = flag_of(TrainSettings, "compile")
    sync_bn: bool = flag_of(TrainSettings, "sync_bn")
    summ_step: int = flag_of(TrainSettings, "summ_step")
    save_step: int = setting(
        1000, "steps between two checkpoints; a killed run loses no more when started again", accept=COUNT
    )
    keep_checkpoints: int = setting(3, "checkpoints of each phase that are kept", accept=COUNT, argument="keep")
