"""How long and how fast each network trains, where the flags leave it open: PocketFlow's values."""

from dataclasses import dataclass

from config import Config, TrainConfig
from pocketprune.training.schedules import (
    POCKETFLOW_RECIPES,
    Constant,
    Cosine,
    Piecewise,
    Schedule,
    start_rate,
)
from pocketprune.training.state import TrainSettings


@dataclass(frozen=True)
class NetRecipe:
    """`lrn_rate` is for steps of `batch_size_norm` images; `schedule` is a key of POCKETFLOW_RECIPES."""

    schedule: str
    lrn_rate: float
    batch_size_norm: int
    weight_decay: float


NET_RECIPES: dict[str, NetRecipe] = {
    "lenet": NetRecipe("cifar", 0.01, 128, 5e-4),
    "plain": NetRecipe("cifar", 0.1, 128, 2e-4),
    "resnet": NetRecipe("cifar", 0.1, 128, 2e-4),
    "resnet_imagenet": NetRecipe("imagenet", 0.1, 256, 1e-4),
    "vgg16_bn": NetRecipe("cifar", 0.05, 128, 5e-4),
    "mobilenet_v1": NetRecipe("imagenet", 0.045, 96, 4e-5),
    "mobilenet_v2": NetRecipe("mobilenet_v2", 0.045, 96, 4e-5),
}
ANY_NET = NET_RECIPES["resnet"]

# An epoch of digits is ten steps, and the network has learnt all of it after this many.
DATASET_EPOCHS: dict[str, int] = {"digits": 80}


def train_settings(config: Config, share: float = 1.0) -> TrainSettings:
    """Settings for `share` of the full schedule of the run's network, data set and flags."""
    train, data = config.train, config.data
    recipe = NET_RECIPES.get(config.net.net, ANY_NET)
    full = POCKETFLOW_RECIPES[recipe.schedule]
    epochs = train.nb_epochs or DATASET_EPOCHS.get(data.dataset, full.epochs)
    rate = train.lrn_rate_init or recipe.lrn_rate
    decay = recipe.weight_decay if train.loss_w_dcy is None else train.loss_w_dcy
    return TrainSettings(
        epochs=epochs * share,
        batch_size=data.batch_size,
        lrn_rate=start_rate(rate, data.batch_size, train.batch_size_norm or recipe.batch_size_norm),
        schedule=_schedule(train, full.schedule),
        momentum=train.momentum,
        weight_decay=decay,
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


def _schedule(train: TrainConfig, own: Schedule) -> Schedule:
    """The schedule that --lrn_rate_dcy names, or the network's own."""
    named = {"piecewise": Piecewise((0.4, 0.6, 0.8)), "cosine": Cosine(train.warmup), "constant": Constant()}
    return named[train.lrn_rate_dcy] if train.lrn_rate_dcy else own
