"""The training schedule of each network on each kind of data: PocketFlow's where it has one.

PocketFlow trains CIFAR networks for 250 epochs, ImageNet residual networks and MobileNet-v1 for 100, and MobileNet-v2
for 412.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A full training by SGD with momentum.

    Attributes:
        lrn_rate_init: learning rate at the start, for steps of `batch_size_norm` images.
        batch_size_norm: number of these images.
        loss_w_dcy: weight decay.
        nb_epochs: length in epochs.
        decay_epochs: epochs at which the rate is multiplied by `decay_rate`.
        decay_rate: this factor.
    """

    lrn_rate_init: float
    batch_size_norm: int
    loss_w_dcy: float
    nb_epochs: int
    decay_epochs: tuple[float, ...]
    decay_rate: float = 0.1


def _digits(lrn_rate_init: float, batch_size_norm: int, loss_w_dcy: float) -> Schedule:
    """Return a schedule of 40 epochs of ten steps. After that a network learns no more from the 1,300 images."""
    return Schedule(lrn_rate_init, batch_size_norm, loss_w_dcy, 40, (16, 24, 32))


def _small(lrn_rate_init: float, batch_size_norm: int, loss_w_dcy: float) -> Schedule:
    return Schedule(lrn_rate_init, batch_size_norm, loss_w_dcy, 250, (100, 150, 200))


def _large(lrn_rate_init: float, batch_size_norm: int, loss_w_dcy: float) -> Schedule:
    return Schedule(lrn_rate_init, batch_size_norm, loss_w_dcy, 100, (30, 60, 80, 90))


def _mobilenet_v2() -> Schedule:
    stairs = tuple(2.5 * i for i in range(1, 165))  # the rate falls by 0.98 an epoch, every 2.5 epochs
    return Schedule(0.045, 96, 4e-5, 412, stairs, 0.98**2.5)


KINDS: dict[str, tuple[str, ...]] = {
    "digits": ("digits",),
    "fashion_mnist": ("fashion", "small"),
    "image_folder": ("large",),
}
"""Data set -> its kinds, the most specific one first. Any other data set is `small`, like CIFAR-10."""

SCHEDULES: dict[tuple[str, str], Schedule] = {
    ("lenet", "digits"): _digits(0.05, 128, 5e-4),
    ("lenet", "small"): _small(0.01, 128, 5e-4),
    ("lenet", "large"): _large(0.01, 128, 5e-4),
    ("vgg16_bn", "small"): _small(0.05, 128, 5e-4),
    ("vgg16_bn", "large"): _large(0.01, 256, 5e-4),
    ("mobilenet_v1", "digits"): _digits(0.1, 128, 5e-4),
    ("mobilenet_v1", "small"): _small(0.045, 96, 4e-5),
    ("mobilenet_v1", "large"): _large(0.045, 96, 4e-5),
    ("mobilenet_v2", "digits"): _digits(0.1, 128, 5e-4),
    ("mobilenet_v2", "small"): _small(0.045, 96, 4e-5),
    ("mobilenet_v2", "large"): _mobilenet_v2(),
    ("resnet", "digits"): _digits(0.1, 128, 5e-4),
    ("resnet", "fashion"): _small(0.1, 128, 3e-4),
    ("resnet", "small"): _small(0.1, 128, 2e-4),
    ("resnet_imagenet", "small"): _small(0.1, 128, 5e-4),
    ("resnet_imagenet", "large"): _large(0.1, 256, 1e-4),
}


def schedule_for(net: str, dataset: str) -> Schedule:
    """Return the schedule of a network on a data set, both by name.

    A network without a schedule of its own (`plain`, a caller's own) takes that of `resnet`. On large images it takes
    that of `resnet_imagenet`. A data set without one takes that of small images.
    """
    kinds = KINDS.get(dataset, ("small",))
    fallback = "resnet_imagenet" if kinds == ("large",) else "resnet"
    keys = [(name, kind) for name in (net, fallback) for kind in kinds]
    return next(SCHEDULES[key] for key in keys if key in SCHEDULES)
