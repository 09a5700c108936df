"""How far the outputs of one network are from those of another on the same inputs, for outputs of any structure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from pocketprune.common.errors import UserError


def output_divergence(found: Any, expected: Any) -> float:
    """Return how far outputs are from the expected ones; 0 where they are the same.

    Class scores, an output that is one tensor (n, classes), give the mean Kullback-Leibler divergence of the
    probabilities. Any other structure gives the squared error relative to the variance, as the mean over its tensors.

    Args:
        found: tensors, nested in sequences, mappings and dataclasses. Only those of floating-point numbers count.
        expected: the same structure.

    Raises:
        UserError: the structures or the shapes differ.
    """
    pairs = paired(found, expected)
    if isinstance(expected, Tensor) and expected.dim() == 2 and expected.shape[1] > 1:
        return class_divergence(found, expected)
    errors = [relative_error(one, other) for one, other in pairs]
    return sum(errors) / len(errors) if errors else 0.0


def class_divergence(found: Tensor, expected: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence, in nats, of class scores (n, classes, ...), softmaxed."""
    logs, wanted = (scores.float().log_softmax(1) for scores in (found, expected))
    count = wanted.numel() / wanted.shape[1]
    return float(F.kl_div(logs, wanted, reduction="sum", log_target=True)) / count


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the squared error over the variance; of a map (n, c, ...), over the images and places of each channel.

    If the expected numbers do not vary, the squared error is taken over their squares.
    """
    error, wanted = (found - expected).double(), expected.double()
    over = [axis for axis in range(wanted.dim()) if axis != 1]
    varied = float((wanted - wanted.mean(over, keepdim=True)).square().sum()) if wanted.numel() else 0.0
    missed, scale = float(error.square().sum()), varied or float(wanted.square().sum())
    if scale:
        return missed / scale
    return math.inf if missed else 0.0


def paired(found: Any, expected: Any) -> list[tuple[Tensor, Tensor]]:
    """Return the floating-point tensors of two outputs in pairs.

    Raises:
        UserError: one of them has a part that the other lacks, or in another shape; it is named.
    """
    mine, others = dict(_parts(found)), dict(_parts(expected))
    for name in {**others, **mine}:
        looks = [_look(parts.get(name)) for parts in (mine, others)]
        if looks[0] != looks[1]:
            where = f"outputs{name}"
            raise UserError(f"two networks' {where} differ in structure: {looks[0]} and {looks[1]}")
    return [(mine[name], tensor) for name, tensor in others.items() if tensor.is_floating_point()]


def _look(value: Tensor | None) -> str:
    return "nothing" if value is None else f"a tensor {tuple(value.shape)}"


def _parts(outputs: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor with its place: `.boxes`, `['scores']`, `[0]`."""
    if isinstance(outputs, Tensor):
        yield name, outputs
    elif isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from _parts(value, f"{name}[{key!r}]")
    elif isinstance(outputs, (tuple, list)):
        for number, value in enumerate(outputs):
            yield from _parts(value, f"{name}[{number}]")
    elif dataclasses.is_dataclass(outputs):
        for field in dataclasses.fields(outputs):
            yield from _parts(getattr(outputs, field.name), f"{name}.{field.name}")
