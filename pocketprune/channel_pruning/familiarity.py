"""Whether calibration images look like those that the network was trained on, as far as the network itself can tell.

A batch norm knows the mean and the variance of what it saw in training. What the first one sees now depends on little
but the images: on another normalisation its variance is several times as large or as small.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.graph.branches import TRACKED_NORMS
from pocketprune.graph.execution import Env, run
from pocketprune.graph.nodes import arguments, operator_name, tensors_in
from pocketprune.graph.tracing import TracedNet

IMAGES = 64
"""Images that are looked at."""
SHIFT, FACTOR = 1.0, 3.0
"""Means off by more than SHIFT standard deviations, or variances by more than FACTOR, are strange. Trained CIFAR-10
ResNets see 0.2 and 1.5 on their own images, 0.3 and 14 on images that were not normalised."""
CLASSES, LIKELY = 8, 0.8
"""With so many outputs, one of them should not be the largest for more than a share LIKELY of the images."""


def strange_images(traced: TracedNet, calibration: Calibration) -> list[str]:
    """Return warnings about the calibration images, the same in every process.

    Args:
        traced: the dense network, in evaluation mode.
        calibration: the images. Every process must call this, if they prune together.
    """
    norm = next((node for node in traced.call_nodes() if _knows_statistics(traced, node)), None)
    seen: list[Tensor] = []

    def look(node: fx.Node, env: Env) -> None:
        if node is norm:
            seen.append(env[arguments(node)[0]].double().movedim(1, 0).flatten(1))  # images may differ in size

    outputs = [run(traced, inputs, before=look) for inputs, _ in calibration.first(IMAGES)]
    warnings = [] if norm is None or not seen else _strange_values(traced, norm, torch.cat(seen, dim=1))
    warnings += _one_class([tensors_in(output) for output in outputs])
    found: list[str] = calibration.gather(warnings)[0]
    return found


def _knows_statistics(traced: TracedNet, node: fx.Node) -> bool:
    return operator_name(node) in TRACKED_NORMS and all(known in traced.tensor_names for known in arguments(node)[3:5])


def _strange_values(traced: TracedNet, norm: fx.Node, rows: Tensor) -> list[str]:
    """Return a warning if a batch norm's statistics are far from those of the values (c, m) it is given."""
    own, names, args = traced.named_tensors(), traced.tensor_names, arguments(norm)
    mean, variance = (own[names[args[place]]].detach().double() for place in (3, 4))
    alive = variance > 0
    untrained = not bool(mean.any()) and bool((variance == 1).all())
    if untrained or rows.shape[1] < 2 or not bool(alive.any()):
        return []
    shift = float(((rows.mean(1) - mean).square()[alive] / variance[alive]).mean().sqrt())
    ratio = (rows.var(1)[alive] / variance[alive]).clamp_min(torch.finfo(torch.float32).tiny)
    factor = float(ratio.log().abs().mean().exp())
    if shift <= SHIFT and factor <= FACTOR:
        return []
    return [
        f"the calibration images are not like those of the training: their first batch norm '{_name(traced, norm)}' "
        f"sees means {shift:.2g} standard deviations off and variances {factor:.2g} times as large or small; they may "
        "be normalised otherwise"
    ]


def _name(traced: TracedNet, norm: fx.Node) -> str:
    return traced.tensor_names[arguments(norm)[3]].rpartition(".")[0]


def _one_class(outputs: list[list[Tensor]]) -> list[str]:
    """Return a warning if a classifier says the same of nearly all images."""
    logits = [found[0] for found in outputs if len(found) == 1 and found[0].dim() == 2 and found[0].shape[1] >= CLASSES]
    if sum(map(len, logits)) < IMAGES:
        return []
    counts = torch.cat(logits).argmax(1).bincount()
    share = float(counts.max()) / float(counts.sum())
    if share <= LIKELY:
        return []
    return [
        f"the dense network's largest output is number {int(counts.argmax())} for {share:.0%} of {int(counts.sum())} "
        "calibration images: what the others need is not seen"
    ]
