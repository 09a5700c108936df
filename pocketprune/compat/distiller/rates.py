"""The learning rates of a Distiller schedule, as factors of the rate at the start."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from pocketprune.common.names import nearest
from pocketprune.common.registry import one_line
from pocketprune.compat.distiller.periods import Period
from pocketprune.compat.distiller.reading import Document, Place


class MultiStepMultiGammaLR(lr_scheduler.LRScheduler):
    """Distiller's schedule that multiplies the rate at each milestone by a factor of its own.

    Args:
        optimizer: whose rates are set.
        milestones: epochs, in rising order.
        gammas: a factor for each.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, milestones: Sequence[int], gammas: Sequence[float]) -> None:
        if len(milestones) != len(gammas):
            raise ValueError(f"{len(milestones)} milestones and {len(gammas)} gammas given")
        self.milestones, self.gammas = list(milestones), list(gammas)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of each parameter group."""
        factor = 1.0
        for milestone, gamma in zip(self.milestones, self.gammas, strict=True):
            factor *= gamma if self.last_epoch >= milestone else 1.0
        return [base * factor for base in self.base_lrs]


CLASSES: dict[str, Any] = {
    **{
        name: getattr(lr_scheduler, name)
        for name in ("StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
                     "PolynomialLR", "LinearLR", "ConstantLR")
    },
    "MultiStepMultiGammaLR": MultiStepMultiGammaLR,
}  # fmt: skip
"""The schedulers whose rate depends on the epoch alone."""


def check_rates(document: Document) -> None:
    """Check the schedulers of a file.

    Raises:
        UserError: an unknown class or argument.
    """
    for name in document.section(("lr_schedulers",)):
        scheduler_for(document, name, _optimizer())


def scheduler_for(document: Document, name: str, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Return the scheduler of a name on an optimizer; raises are those of `check_rates`."""
    place: Place = ("lr_schedulers", name)
    kind = str(document.get((*place, "class")))
    if kind not in CLASSES:
        raise document.error((*place, "class"), f"'{kind}' given{nearest(kind, CLASSES)}")
    known = [each for each in inspect.signature(CLASSES[kind]).parameters if each not in ("optimizer", "verbose")]
    document.check_keys(place, ("class", *known))
    given = {key: value for key, value in document.section(place).items() if key != "class"}
    try:
        scheduler: lr_scheduler.LRScheduler = CLASSES[kind](optimizer, **given)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise document.error(place, one_line(error)) from error
    return scheduler


def rate_factors(document: Document, periods: Sequence[Period], epochs: int) -> tuple[float, ...]:
    """Return the factor of the start rate in each epoch."""
    optimizer = _optimizer()
    schedulers = [(period, scheduler_for(document, period.name, optimizer)) for period in periods]
    factors = []
    for epoch in range(epochs):
        factors.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()  # torch warns of schedulers that come before it
        for period, scheduler in schedulers:
            if period.holds(epoch) and (epoch - period.start) % period.frequency == 0:
                scheduler.step()
    return tuple(factors)


def _optimizer() -> torch.optim.Optimizer:
    """Return an optimizer of nothing, at rate 1."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
