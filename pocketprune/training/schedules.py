"""Learning-rate schedules: pure functions of (step, total steps) that return a factor of the start rate.

They are written in shares of the whole training, so that one schedule fits a run of any length. PocketFlow's
"divide by ten at epochs 100, 150 and 200 of 250" is `Piecewise((0.4, 0.6, 0.8))`. They are frozen dataclasses rather
than closures because their repr is saved in checkpoints, and a resumed run compares it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer

from pocketprune.common.errors import UserError

Schedule = Callable[[int, int], float]


def start_rate(lrn_rate_init: float, batch_size: int, batch_size_norm: float) -> float:
    """Return the rate for `batch_size` images a step, in proportion to the one for `batch_size_norm` images.

    Raises:
        UserError: one of the three is not positive.
    """
    given = {"lrn_rate_init": lrn_rate_init, "batch_size": batch_size, "batch_size_norm": batch_size_norm}
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UserError(f"{value} given; it must be positive", argument=name)
    return lrn_rate_init * batch_size / batch_size_norm


@dataclass(frozen=True)
class Constant:
    """A schedule that keeps the start rate."""

    def __call__(self, step: int, total: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Piecewise:
    """A schedule that multiplies the rate by `decay` at each boundary.

    The boundaries are shares of the training in (0, 1), in rising order.
    """

    boundaries: tuple[float, ...]
    decay: float = 0.1

    def __post_init__(self) -> None:
        inside = all(0 < boundary < 1 for boundary in self.boundaries)
        if not inside or sorted(set(self.boundaries)) != list(self.boundaries):
            raise UserError(f"piecewise schedule: boundaries={self.boundaries} must rise within (0, 1)")
        if not 0 < self.decay <= 1:
            raise UserError(f"piecewise schedule: decay={self.decay} must lie in (0, 1]")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor of the start rate for `step`, counted from 0."""
        return self.decay ** sum(step >= round(boundary * total) for boundary in self.boundaries)


@dataclass(frozen=True)
class Cosine:
    """A schedule that rises linearly over the share `warmup` and then falls along half a cosine from 1 to `final`.

    The cosine is SGDR's without restarts (Loshchilov and Hutter, arXiv 1608.03983, eq. 5). The warm-up is that of
    Goyal et al. (arXiv 1706.02677): it rises from 1/n to 1 in n steps.
    """

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"cosine schedule: warmup={self.warmup} must lie in [0, 1)")
        if not 0 <= self.final <= 1:
            raise UserError(f"cosine schedule: final={self.final} must lie in [0, 1]")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor of the start rate for `step`, counted from 0."""
        rise = round(self.warmup * total)
        if step < rise:
            return (step + 1) / rise
        share = min(1.0, (step - rise) / max(1, total - rise))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Exponential:
    """A schedule that multiplies the rate by `decay` after each 1/`stairs` of the training."""

    decay: float
    stairs: float

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1 or self.stairs < 1:
            raise UserError(
                f"exponential schedule: decay={self.decay} must lie in (0, 1] and stairs={self.stairs} be at least 1"
            )

    def __call__(self, step: int, total: int) -> float:
        """Return the factor of the start rate for `step`, counted from 0."""
        return self.decay ** math.floor(self.stairs * step / total)


@dataclass(frozen=True)
class PerEpoch:
    """A schedule with a factor of its own for each of the training's epochs, which are equally long."""

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.factors or not all(0 <= factor < math.inf for factor in self.factors):
            raise UserError(f"schedule by epochs: factors={self.factors} must be numbers, 0 or more")

    def __call__(self, step: int, total: int) -> float:
        """Return the factor of the start rate for `step`, counted from 0."""
        return self.factors[min(len(self.factors) - 1, step * len(self.factors) // total)]


@dataclass(frozen=True)
class Recipe:
    """A full training as PocketFlow prescribes it for a family of networks."""

    epochs: int
    schedule: Schedule


# PocketFlow's setup_lrn_rate() of each family. MobileNet-v2's rate falls by 0.98 an epoch, every 2.5 epochs.
POCKETFLOW_RECIPES: dict[str, Recipe] = {
    "cifar": Recipe(250, Piecewise((100 / 250, 150 / 250, 200 / 250))),
    "imagenet": Recipe(100, Piecewise((0.3, 0.6, 0.8, 0.9))),
    "mobilenet_v2": Recipe(412, Exponential(decay=0.98**2.5, stairs=412 / 2.5)),
}


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the rate of every parameter group to `factor` times the rate with which the group was created.

    A torch scheduler is not used because it fails on a group that a callback adds to the optimizer later.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
