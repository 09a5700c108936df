"""How a run trains: the schedule of its network and data set, where the flags do not say otherwise."""

import math
from dataclasses import replace

from config import Config
from config.training import TrainConfig
from nets import NETS
from nets.schedules import Schedule as NetSchedule
from nets.schedules import schedule_for
from pocketprune.training.schedules import Constant, Cosine, Piecewise, Schedule, start_rate
from pocketprune.training.state import TrainSettings

FITTED_WARMUP = 0.1  # share of the steps
FITTED_CLIP_NORM = 1.0
FITTED_ADAM_RATE = 0.002


def train_settings(config: Config, share: float = 1.0, device: str = "cpu") -> TrainSettings:
    """Return settings for `share` of the full schedule of the run's network and data set, on a kind of device."""
    train, data = config.train, config.data
    own = schedule_for(config.net.net, data.dataset)
    rate = train.lrn_rate_init or own.lrn_rate_init
    return TrainSettings(
        epochs=(train.nb_epochs or own.nb_epochs) * share,
        batch_size=data.batch_size,
        lrn_rate=start_rate(rate, data.batch_size, train.batch_size_norm or own.batch_size_norm),
        schedule=_schedule(train, own),
        optimizer=train.optimizer,
        momentum=train.momentum,
        weight_decay=own.loss_w_dcy if train.loss_w_dcy is None else train.loss_w_dcy,
        label_smoothing=train.label_smoothing,
        ema_decay=train.ema_decay,
        clip_norm=train.clip_norm,
        amp=train.amp,
        tf32=train.tf32,
        channels_last=_channels_last(config, device),
        compile=train.compile,
        sync_bn=train.sync_bn,
        seed=config.run.seed,
        summ_step=train.summ_step,
        save_step=train.save_step,
    )


def finetune_settings(config: Config, share: float = 1.0, device: str = "cpu") -> TrainSettings:
    """Return settings for the training of a network that was pruned before, for `share` of the full schedule.

    Such a network is a good start, which the first rate of a training from scratch throws away. Unless
    --ft_recipe=pocketflow asks for that one, the first rate is fitted to the length. It rises over a warm-up and falls
    along half a cosine, and gradients are clipped.
    """
    train, full = config.train, train_settings(config, share, device)
    if train.ft_recipe == "pocketflow":
        return full
    whole = schedule_for(config.net.net, config.data.dataset).nb_epochs
    return replace(
        full,
        lrn_rate=full.lrn_rate if train.lrn_rate_init else _fitted_rate(full, full.epochs / whole),
        schedule=full.schedule if train.lrn_rate_dcy else Cosine(train.warmup or FITTED_WARMUP),
        clip_norm=train.clip_norm or FITTED_CLIP_NORM,
    )


def _fitted_rate(full: TrainSettings, share: float) -> float:
    """Return the first rate for a training as long as `share` of one from scratch.

    That of SGD grows with the root of the share, up to the rate from scratch at a quarter. Measured on the digits, the
    whole rate is the best one from a quarter on, and undoes the reconstruction in two epochs.
    """
    return FITTED_ADAM_RATE if full.optimizer == "adam" else full.lrn_rate * min(1.0, 2 * math.sqrt(share))


def group_settings(config: Config, device: str = "cpu") -> TrainSettings:
    """Return settings for the training between two groups of layers: a short one by Adam, or the full schedule."""
    pruning = config.channel_pruning
    full = finetune_settings(config, config.train.nb_epochs_rat, device)
    if pruning.cp_retrain or not pruning.cp_finetune:
        return full
    return replace(
        full,
        epochs=full.epochs * pruning.cp_nb_iters_ft_ratio,
        optimizer="adam",
        lrn_rate=pruning.cp_lrn_rate_ft,
        schedule=Constant(),
    )


def recovery_settings(config: Config, device: str = "cpu") -> TrainSettings:
    """Return settings for the imitation of the dense network, without labels."""
    pruning = config.channel_pruning
    return replace(
        train_settings(config, 1.0, device),
        epochs=pruning.cp_recover_epochs,
        optimizer="adam",
        lrn_rate=pruning.cp_recover_lrn_rate,
        schedule=Cosine(FITTED_WARMUP),
        weight_decay=0.0,
        ema_decay=0.0,
        clip_norm=FITTED_CLIP_NORM,
    )


def _channels_last(config: Config, device: str) -> bool:
    """Return what is asked for; by default yes, where convolutions are faster so, for networks known to train so."""
    asked = config.train.channels_last
    return config.net.net in NETS and (device == "cpu" or config.train.amp == "bf16") if asked is None else asked


def _schedule(train: TrainConfig, own: NetSchedule) -> Schedule:
    """Return the schedule that --lrn_rate_dcy names, or the network's own; both fit a training of any length."""
    steps = Piecewise(tuple(epoch / own.nb_epochs for epoch in own.decay_epochs), own.decay_rate)
    named: dict[str, Schedule] = {"piecewise": steps, "cosine": Cosine(train.warmup), "constant": Constant()}
    return named[train.lrn_rate_dcy or "piecewise"]
