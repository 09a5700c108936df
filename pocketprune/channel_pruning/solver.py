"""The solution of one layer: moments, selection, refit. Nothing here knows of other layers, batches or networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pocketprune.channel_pruning.consumers import Consumer, Fit
from pocketprune.numerics.criteria import kept_channels
from pocketprune.numerics.evidence import Evidence
from pocketprune.numerics.moments import Moments

RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""The ridges towards the old weight that are tried, relative to the mean diagonal of the moments."""


@dataclass(frozen=True)
class LayerMoments:
    """The moments of one layer, a list entry for each group of its convolution.

    Attributes:
        fit: of the images to which weights are fitted.
        held: of the images on which the error of the fit is measured.
        both: of all images.
        judged: whether `held` has images of its own.
    """

    fit: list[Moments]
    held: list[Moments]
    both: list[Moments]
    judged: bool = True

    @classmethod
    def of(cls, fit: list[Moments], held: list[Moments]) -> LayerMoments:
        """Return both with their sums. Without held-out images, the error is measured on the fitted ones."""
        judged = held[0].count > 0
        held = held if judged else fit
        return cls(fit, held, [_merged(f, h) for f, h in zip(fit, held, strict=True)], judged)

    @property
    def rows(self) -> int:
        """The number of patches, of all images, that a layer's weight is fitted to."""
        return self.both[0].count


@dataclass(frozen=True)
class Solution:
    """The decision for one layer.

    Attributes:
        kept: units of its input that stay, sorted.
        fits: weights and biases on the kept units; None if the layer stays as it is.
        error_before: held-out error with the old weight on the kept units.
        error_after: held-out error with `fits`.
    """

    kept: Tensor
    fits: list[Fit] | None
    error_before: float
    error_after: float


def choose(consumer: Consumer, moments: LayerMoments, count: int, selection: str, generator: torch.Generator) -> Tensor:
    """Return the units (count,) of a consumer's input to keep, by a criterion on the moments of all images."""
    evidence = Evidence(
        channels=consumer.decision.size,
        consumers=consumer.slices(moments.both),
        ridge=RIDGES[0],
        generator=generator,
    )
    return kept_channels(selection, evidence, count).to(moments.both[0].A.device)


def solve(consumer: Consumer, moments: LayerMoments, kept: Tensor, *, untouched: bool) -> Solution:
    """Refit a layer on its kept units if that lowers the held-out error.

    The ridge is the one of `RIDGES` with the lowest held-out error. The weight is then fitted to all images. Where no
    image is held out and there are fewer rows than unknowns, the old weight stays.

    Args:
        consumer: the layer.
        moments: its moments.
        kept: units of its input that stay.
        untouched: whether no layer before it was refitted. If all units are kept as well, it stays as it is.

    Returns:
        The refitted layer with its errors.
    """
    old = consumer.dense(kept)
    before = consumer.error(moments.held, old, kept)
    if untouched and len(kept) == consumer.decision.size:
        return Solution(kept, None, before, before)
    if not moments.judged and moments.rows < unknowns(consumer, kept):
        return Solution(kept, old, before, before)  # any such fit looks perfect on the images that it is fitted to
    errors = {ridge: consumer.error(moments.held, consumer.refit(moments.fit, kept, ridge), kept) for ridge in RIDGES}
    ridge = min(errors, key=errors.__getitem__)
    if not errors[ridge] < before:
        return Solution(kept, old, before, before)
    return Solution(kept, consumer.refit(moments.both, kept, ridge), before, errors[ridge])


def unknowns(consumer: Consumer, kept: Tensor) -> int:
    """Return how many numbers are fitted for each output of a layer, the bias included."""
    return len(kept) * consumer.block + 1


def _merged(fit: Moments, held: Moments) -> Moments:
    """Return the moments of all images."""
    both = Moments(fit.count, *(t.clone() for t in (fit.mean_x, fit.mean_y, fit.A, fit.B, fit.sigma)))
    if held is not fit:
        both.merge(held)
    return both
