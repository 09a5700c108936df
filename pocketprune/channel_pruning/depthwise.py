"""Depthwise convolutions in a pruning: they keep the channels that others leave, and each channel is refitted."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.solver import RIDGES
from pocketprune.graph.sweep import Sweep
from pocketprune.numerics.depthwise import TapMoments, best_taps
from pocketprune.numerics.patches import output_rows, patches
from pocketprune.structure.channel_groups import Structure

POINTS = 10
"""Positions per image, at most: a channel has no more unknowns than taps."""
IMAGES = 16
"""Images whose patches are held at once."""


def depthwise_cut(consumer: Consumer, sweep: Sweep, calibration: Calibration, structure: Structure) -> Cut:
    """Return the cut that refits the depthwise layer at which a sweep has stopped. Every process must call this.

    Args:
        consumer: the layer, with a place for its bias.
        sweep: the sweep.
        calibration: the images, a part of which is held out.
        structure: the dense network.
    """
    weight = consumer.weight_tensor.flatten(1)
    fit = held = TapMoments.zeros(weight.shape[0], weight.shape[1], weight.device)
    for number, (x, target) in enumerate(sweep.rows()):
        fitted = calibration.fitted_rows(number, len(x))
        generator = torch.Generator().manual_seed(number)
        fit = _with_rows(fit, consumer, x[:fitted], target[:fitted], generator)
        held = _with_rows(held, consumer, x[fitted:], target[fitted:], generator)
    fit, held = (reduce(TapMoments.merged, calibration.gather(part)) for part in (fit, held))
    W, bias = best_taps(fit, held if held.count else fit, weight, torch.cat(consumer.biases), RIDGES)
    tensors, biases = consumer.refitted(torch.zeros(1, dtype=torch.long, device=W.device), [(W.T, bias)])
    return Cut(Cut.nothing(structure).removed, tensors=tensors, biases=biases)


def _with_rows(
    moments: TapMoments, consumer: Consumer, x: Tensor, target: Tensor, generator: torch.Generator
) -> TapMoments:
    """Return the moments with rows of a batch at random positions: inputs (N, c, *in), targets (N, n, *out)."""
    g = consumer.geometry
    assert g is not None  # a depthwise layer is a convolution
    channels, taps = moments.mean_x.shape
    for some, wanted in zip(x.split(IMAGES), target.split(IMAGES), strict=True):
        if len(some):
            positions = torch.randperm(wanted.shape[2:].numel(), generator=generator)[:POINTS].to(x.device)
            rows = patches(g.padded(some), g.kernel, g.stride, g.padding, g.dilation, positions)
            rows = rows.view(len(rows), -1, taps).repeat_interleave(channels * taps // rows.shape[1], 1)
            moments = moments.merged(TapMoments.of(rows, output_rows(wanted, positions)))
    return moments
