"""Whether two forms of a network compute the same, step by step.

Outputs alone can hide a difference: a narrow ReLU none of whose channels is positive passes nothing on, and a deep
network may flatten what its first layers do wrong. So every product and every activation on the way is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pocketprune.common.inputs import copied
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.nodes import tensors_in

STEPS = frozenset(
    (
        "convolution",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "add",
        "sub",
        "mul",
        "div",
        "relu",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "sigmoid",
        "tanh",
        "silu",
        "gelu",
        "elu",
        "leaky_relu",
        "mish",
        "softplus",
        "_prelu_kernel",
        "clamp",
        "clamp_min",
        "abs",
        "exp",
        "neg",
        "pow",
        "sqrt",
        "rsqrt",
        "maximum",
        "minimum",
        "_softmax",
        "mean",
        "amax",
        "sum",
    )
)
"""Operators, as they are dispatched, whose results are compared; an in-place one counts as its pure twin."""


class _DifferenceError(Exception):
    """A step gave another result."""


class _Steps(TorchDispatchMode):
    """Hears of every step's result: the first network's are kept, the second's compared with them in their order."""

    def __init__(self, tolerance: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.results: deque[Tensor] = deque()
        self.tolerance, self.comparing = tolerance, False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if isinstance(result, Tensor) and name.removesuffix("_") in STEPS and result.is_floating_point():
            if not self.comparing:
                self.results.append(result)
            elif not self.results or not _alike(self.results.popleft(), result, self.tolerance):
                raise _DifferenceError
        return result


def same_computation(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], tolerance: float = 1e-4
) -> bool:
    """Whether two networks in evaluation mode go through the same results to the same outputs.

    No step of the first may work in place.
    """
    steps = _Steps(tolerance)
    with torch.no_grad(), evaluation_mode(first), evaluation_mode(second):
        with _plain_attention(), steps:
            expected = first(*copied(args), **copied(dict(kwargs)))
        steps.comparing = True
        try:
            with _plain_attention(), steps:
                second(*copied(args), **copied(dict(kwargs)))
            made = second(*copied(args), **copied(dict(kwargs)))  # with the fused path, if it takes one
        except Exception:  # a network's own code may fail in any way once its widths no longer fit
            return False
    return not steps.results and all_alike(expected, made, tolerance)


def all_alike(reference: Any, other: Any, tolerance: float) -> bool:
    """Whether two nested outputs hold tensors of the same shapes and numbers."""
    a, b = tensors_in(reference), tensors_in(other)
    return len(a) == len(b) and all(_alike(x, y, tolerance) for x, y in zip(a, b, strict=True))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused inference path of torch's attention modules, which a traced graph does not take."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and near(a, b, tolerance)


def near(reference: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether no difference exceeds the tolerance, relative to the largest value; values that are no numbers agree."""
    if not reference.is_floating_point():
        return bool(torch.equal(reference, other))
    finite = reference.isfinite()
    if not bool((finite == other.isfinite()).all()):
        return False
    if torch.finfo(reference.dtype).bits < 32:
        tolerance = max(tolerance, 0.05)
    scale = reference[finite].abs().max() if bool(finite.any()) else reference.new_ones(())
    return bool(((reference - other)[finite].abs() <= tolerance * scale).all())
