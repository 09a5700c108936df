"""The last look at a pruned network: does its output keep what the layers' errors promise?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import PruneResult
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.nodes import tensors_in
from pocketprune.graph.tracing import copied, split_inputs
from pocketprune.training.distributed import all_reduce_sum

FACTOR, SLACK = 4.0, 0.1
"""An output error above FACTOR times the largest error of a layer, plus SLACK, contradicts the layers' errors."""
FALLEN = 1.0
"""At this output error a constant, the mean output, would do as well."""


class PruningWarning(UserWarning):
    """A pruned network may not be what its owner expects."""


def measured(result: PruneResult, plan: Plan, calibration: Calibration) -> PruneResult:
    """Return the result with the measured error of the thinned network's output, and warnings where it is too large.

    The error is measured once, end to end, on the calibration's held-out images.
    """
    dense, together = plan.structure.traced.net, calibration.world > 1
    error = output_error(result.net, dense, calibration.held_out(), together=together)
    promised = max((layer.error_after for layer in result.layers), default=0.0)
    warnings = []
    if not error <= FACTOR * promised + SLACK:
        warnings.append(
            f"the pruned network's output is off by {error:.3g} of its variance on held-out images, although no layer "
            f"is off by more than {promised:.3g}"
        )
    elif error >= FALLEN:
        warnings.append(
            f"the pruned network's output is off by {error:.3g} of its variance on held-out images: too much was "
            "removed, or the calibration images are not like the ones that the network was trained on"
        )
    return replace(result, output_error=error, warnings=tuple(warnings))


@torch.no_grad()
def output_error(net: nn.Module, dense: nn.Module, batches: Iterable[Any], *, together: bool = False) -> float:
    """Return the squared difference of two networks' outputs over the variance of the dense one's.

    All floating-point tensors of the output count together.

    Args:
        batches: inputs; each network works on a copy.
        together: whether every process brings its own batches and all are counted; to be called in each of them.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    with evaluation_mode(net), evaluation_mode(dense):
        for batch in batches:
            found, expected = (_outputs(each, batch) for each in (net, dense))
            for one, other in zip(found, expected, strict=True):
                miss = (one.double() - other.double()).square().sum()
                part = other.double()
                size = torch.tensor(part.numel(), dtype=torch.float64, device=part.device)
                sums += torch.stack([miss, part.square().sum(), part.sum(), size]).cpu()
    miss, squares, total, count = (all_reduce_sum(sums) if together else sums).tolist()
    variance = squares - total * total / max(count, 1.0)
    if not variance > 0:
        return 0.0 if miss <= 0 else float("inf")
    return miss / variance


def _outputs(net: nn.Module, batch: Any) -> list[Tensor]:
    args, kwargs = copied(split_inputs(batch))
    return [tensor for tensor in tensors_in(net(*args, **kwargs)) if tensor.is_floating_point()]
