"""The measured error of a pruned network's output, compared with the errors of its layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.familiarity import strange_images
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import PruneResult
from pocketprune.channel_pruning.state import PruningState
from pocketprune.common.inputs import called
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.graph.nodes import tensors_in
from pocketprune.training.distributed import gather_objects

FACTOR, SLACK = 4.0, 0.1
"""An output error above FACTOR times the largest error of a layer, plus SLACK, contradicts the layers' errors."""
SHARE, LEAST = 0.5, 0.02
"""If a layer writes the output, its error and that of the output should agree. They may differ by SHARE or LEAST."""
ROUNDING = 1e-12
"""Equal outputs have a variance of up to this share of their squares, by rounding."""
FALLEN = 1.0
"""At this output error the network is no better than a constant, the mean output."""


class PruningWarning(UserWarning):
    """A pruned network may not be what its owner expects."""


def measured(result: PruneResult, plan: Plan, calibration: Calibration, state: PruningState) -> PruneResult:
    """Return the result with the measured error of the thinned network's output, and what its owner should know.

    The error is measured once, end to end, on the calibration's held-out images.

    Args:
        result: the pruned network.
        plan: how it was pruned.
        calibration: the images.
        state: of the finished pruning. It holds the error of the layer that writes the output, on the same images.
    """
    dense, together = plan.structure.traced.net, calibration.world > 1
    error = output_error(result.net, dense, calibration.held_out(), together=together)
    largest = max((layer.error_after for layer in result.layers), default=0.0)
    strange = strange_images(plan.structure.traced, calibration)
    warnings = [*strange, *_too_few_rows(state.scarce), *_too_large(error, state.promised, largest)]
    return replace(result, output_error=error, warnings=tuple(warnings))


def _too_few_rows(scarce: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a warning if layers have fewer rows than unknowns, with the numbers of the layer that lacks most."""
    if not scarce:
        return []
    name, (rows, unknowns) = min(scarce.items(), key=lambda entry: entry[1][0] / entry[1][1])
    others = f", and {len(scarce) - 1} more layers have too few" if len(scarce) > 1 else ""
    return [
        f"layer '{name}' has {unknowns} unknowns to refit, and {rows} patches of the calibration images{others}: more "
        "images, or more positions of each, bring its output closer"
    ]


def _too_large(error: float, promised: float | None, largest: float) -> list[str]:
    """Return a warning if the output's error is too large.

    Args:
        error: of the output.
        promised: of the layer that writes the output; None if no layer does.
        largest: of all prunable layers.
    """
    if math.isnan(error):
        return [
            "the dense network's output does not vary over the held-out images: they are too few, or too much alike, "
            "to show what pruning has changed"
        ]
    warnings = []
    if promised is not None and not abs(error - promised) <= SHARE * promised + LEAST:
        warnings.append(
            f"the pruned network's output is off by {error:.3g} of its variance on held-out images, although its last "
            f"layer is off by {promised:.3g}: part of the network does not compute what pruning took it to"
        )
    elif promised is None and not error <= FACTOR * largest + SLACK:
        warnings.append(
            f"the pruned network's output is off by {error:.3g} of its variance on held-out images, although no layer "
            f"is off by more than {largest:.3g}"
        )
    elif not error < FALLEN:
        warnings.append(
            f"the pruned network's output is off by {error:.3g} of its variance on held-out images: too much was "
            "removed, or the calibration images are not like the ones that the network was trained on"
        )
    return warnings


@torch.no_grad()
def output_error(net: nn.Module, dense: nn.Module, batches: Iterable[Any], *, together: bool = False) -> float:
    """Return the squared difference of two networks' outputs over the variance of the dense one's.

    The variance is taken over the images, for each number of the output by itself; of a map (n, c, h, w, ...) for each
    channel, over the images and positions, as for a layer's error. All floating-point tensors of the output count
    together. If the dense outputs do not vary, as those of a single image, a difference gives NaN.

    Args:
        batches: inputs; each network works on a copy.
        together: whether every process brings its own batches and all of them count. Every process must then call this.
    """
    own = _Sums()
    with untouched(net), untouched(dense), evaluation_mode(net), evaluation_mode(dense):
        for batch in batches:
            found, expected = (_outputs(each, batch) for each in (net, dense))
            for number, (one, other) in enumerate(zip(found, expected, strict=True)):
                own.add(number, one.double(), other.double())
    parts = gather_objects((own.miss, own.outputs)) if together else [(own.miss, own.outputs)]
    miss = sum(part[0] for part in parts)
    variance = sum(_variance([part[1][key] for part in parts if key in part[1]]) for key in _keys(parts))
    if not variance > 0:
        return 0.0 if miss <= 0 else math.nan
    return miss / variance


class _Sums:
    """The squared differences of outputs, and for each kind of output [sum, sum of squares, count] (3, numbers)."""

    def __init__(self) -> None:
        self.miss = 0.0
        self.outputs: dict[tuple[int, ...], Tensor] = {}

    def add(self, number: int, found: Tensor, expected: Tensor) -> None:
        """Add output `number` of a batch."""
        self.miss += float((found - expected).square().sum())
        if expected.dim() > 3:
            expected = expected.movedim(1, -1).flatten(0, -2)
        rows = expected.reshape(len(expected) if expected.dim() else 1, -1)
        part = torch.stack([rows.sum(0), rows.square().sum(0), torch.full_like(rows[0], len(rows))]).cpu()
        key = (number, *expected.shape[1:])
        self.outputs[key] = self.outputs[key] + part if key in self.outputs else part


def _keys(parts: list[tuple[float, dict[tuple[int, ...], Tensor]]]) -> set[tuple[int, ...]]:
    return {key for _, outputs in parts for key in outputs}


def _variance(parts: list[Tensor]) -> float:
    """Return the sum of squared distances from the means, from the sums of several processes."""
    total, squares, count = torch.stack(parts).sum(0)
    variance = float((squares - total.square() / count).sum())
    return variance if variance > ROUNDING * float(squares.sum()) else 0.0


def _outputs(net: nn.Module, batch: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(called(net, batch)) if tensor.is_floating_point()]
