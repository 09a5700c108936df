"""How a run trains: the schedule of its network and data set, where the flags do not say otherwise."""

from config import Config, TrainConfig
from nets.schedules import Schedule as NetSchedule
from nets.schedules import schedule_for
from pocketprune.training.schedules import Constant, Cosine, Piecewise, Schedule, start_rate
from pocketprune.training.state import TrainSettings


def train_settings(config: Config, share: float = 1.0) -> TrainSettings:
    """Settings for `share` of the full schedule of the run's network, data set and flags."""
    train, data = config.train, config.data
    own = schedule_for(config.net.net, data.dataset)
    rate = train.lrn_rate_init or own.lrn_rate_init
    return TrainSettings(
        epochs=(train.nb_epochs or own.nb_epochs) * share,
        batch_size=data.batch_size,
        lrn_rate=start_rate(rate, data.batch_size, train.batch_size_norm or own.batch_size_norm),
        schedule=_schedule(train, own),
        momentum=train.momentum,
        weight_decay=own.loss_w_dcy if train.loss_w_dcy is None else train.loss_w_dcy,
        label_smoothing=train.label_smoothing,
        ema_decay=train.ema_decay,
        clip_norm=train.clip_norm,
        amp=train.amp,
        tf32=train.tf32,
        channels_last=train.channels_last,
        compile=train.compile,
        sync_bn=train.sync_bn,
        seed=config.run.seed,
        summ_step=train.summ_step,
    )


def _schedule(train: TrainConfig, own: NetSchedule) -> Schedule:
    """The schedule that --lrn_rate_dcy names, or the network's own; both fit a training of any length."""
    steps = Piecewise(tuple(epoch / own.nb_epochs for epoch in own.decay_epochs), own.decay_rate)
    named = {"piecewise": steps, "cosine": Cosine(train.warmup), "constant": Constant()}
    return named[train.lrn_rate_dcy]
