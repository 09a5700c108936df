"""The places of a convolution's patches: kernel, stride, padding and dilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.nn import functional

from pocketprune.graph.nodes import arguments
from pocketprune.structure.propagation.rules import argument


@dataclass(frozen=True)
class Geometry:
    """The places of a convolution's patches, per spatial axis. A linear layer has none.

    Attributes:
        padding: zeros on both sides of each axis.
        extra: further zeros at the end of each axis, as padding="same" adds them for an even kernel.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    extra: tuple[int, ...]

    def padded(self, x: Tensor) -> Tensor:
        """Return an input (N, C, *in) with the extra zeros."""
        if not any(self.extra):
            return x
        return functional.pad(x, [zeros for extra in reversed(self.extra) for zeros in (0, extra)])


def geometry_of(node: fx.Node) -> Geometry:
    """Return kernel, stride, padding and dilation of a convolution node."""
    kernel = tuple(arguments(node)[1].meta["val"].shape[2:])

    def per_axis(value: Any) -> tuple[int, ...]:
        values = [value] * len(kernel) if isinstance(value, int) else list(value)
        return tuple(values * len(kernel) if len(values) == 1 else values)

    stride = per_axis(argument(node, node.args, node.kwargs, "stride"))
    dilation = per_axis(argument(node, node.args, node.kwargs, "dilation"))
    padding = argument(node, node.args, node.kwargs, "padding")
    extra: list[int] = [0] * len(kernel)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding, extra = [span // 2 for span in spans], [span % 2 for span in spans]
    return Geometry(kernel, stride, per_axis(padding), dilation, tuple(extra))
