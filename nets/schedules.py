"""How long and how fast each network trains on each kind of data, as PocketFlow does where it says.

PocketFlow: CIFAR networks 250 epochs, ImageNet residual networks and MobileNet-v1 100, MobileNet-v2 412.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A full training by SGD with momentum.

    lrn_rate_init: learning rate at the start, for steps of `batch_size_norm` images.
    loss_w_dcy: weight decay.
    nb_epochs: length; at each of `decay_epochs` the rate is multiplied by `decay_rate`.
    """

    lrn_rate_init: float
    batch_size_norm: int
    loss_w_dcy: float
    nb_epochs: int
    decay_epochs: tuple[float, ...]
    decay_rate: float = 0.1


def _digits(lrn_rate_init: float, batch_size_norm: int, loss_w_dcy: float) -> Schedule:
    """An epoch is ten steps; the network has learnt what it can from the 1,300 images after 40 of them."""
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
"""Data set -> kinds, the most particular first; any other is `small`, as CIFAR-10 is."""

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
    """The schedule of a network on a data set, both by name.

    A network without one of its own (`plain`, a user's) takes that of `resnet` or, on large images, of
    `resnet_imagenet`; a data set without one takes that of small images.
    """
    kinds = KINDS.get(dataset, ("small",))
    fallback = "resnet_imagenet" if kinds == ("large",) else "resnet"
    keys = [(name, kind) for name in (net, fallback) for kind in kinds]
    return next(SCHEDULES[key] for key in keys if key in SCHEDULES)
