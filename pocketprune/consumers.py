"""One layer as the mathematics sees it: patches, targets, weight blocks, and where the refitted weight goes."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.errors import UserError
from pocketprune.numerics.moments import Moments
from pocketprune.structure.branches import following_norm, norm_scale
from pocketprune.structure.cost_model import Decision
from pocketprune.structure.propagation import Contraction
from pocketprune.structure.propagation.rules import argument
from pocketprune.structure.sweep import PrunedTensors
from pocketprune.structure.tracing import TracedNet, describe, operator_name


@dataclass(frozen=True)
class Geometry:
    """Where a convolution's patches lie, per spatial axis; a linear layer has none."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


class Consumer:
    """A conv (groups=1) or linear layer whose input channels are chosen among and whose weight is refitted.

    Attributes:
        block: rows of a patch that belong to one unit (channels per unit times kernel size).
        output_weight: (n,) squared scale of the batch norm that follows, or None.
    """

    def __init__(self, traced: TracedNet, decision: Decision) -> None:
        self.traced, self.decision = traced, decision
        self.layer: Contraction = decision.layer.layer
        self.node: fx.Node = self.layer.node
        self.geometry = geometry_of(self.node) if operator_name(self.node) != "linear" else None
        self.norm = following_norm(self.node)
        self._own = traced.named_tensors()
        taps = self.weight_tensor.shape[2:].numel()
        self.block = decision.units.shape[1] * taps
        rows = torch.from_numpy(decision.units)[:, :, None] * taps + torch.arange(taps)
        self._rows = rows.reshape(-1).to(self.weight_tensor.device)

    @property
    def weight_tensor(self) -> Tensor:
        return self._own[self.layer.weight].detach()

    @property
    def weight(self) -> Tensor:
        """The dense weight as the moments see it, (d, n), rows in the order of the units."""
        return self.weight_tensor.flatten(1).T[self._rows]

    @property
    def bias(self) -> Tensor:
        """The dense bias (n,), zeros where the layer has none."""
        n = self.weight_tensor.shape[0]
        return self._own[self.layer.bias].detach() if self.layer.bias else self.weight_tensor.new_zeros(n)

    @property
    def output_weight(self) -> Tensor | None:
        if self.norm is None:
            return None
        return norm_scale(self.norm, self.traced.tensor_names, self._own).square()

    def new_moments(self) -> Moments:
        return Moments.zeros(len(self._rows), self.weight_tensor.shape[0], self.weight_tensor.device)

    def update(self, moments: Moments, x: Tensor, target: Tensor, points: int,
               draw: Callable[[int, int], Tensor]) -> None:
        """Add a batch: the layer's input and the target of its output, at `points` positions an image (0 = all)."""
        if self.geometry is None:
            moments.update(x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1]))
            return
        places = target.shape[2:].numel()
        positions = draw(len(x), places) if 0 < points < places else None
        g = self.geometry
        moments.update_conv(x, target, g.kernel, g.stride, g.padding, g.dilation, positions)

    def ordered(self, moments: Moments) -> Moments:
        """The moments with patch rows in the order of the units, each unit's rows together."""
        r = self._rows
        if bool((r == torch.arange(len(r), device=r.device)).all()):
            return moments
        return Moments(moments.count, moments.mean_x[r], moments.mean_y, moments.A[r][:, r], moments.B[r],
                       moments.sigma)

    def install(self, pruned: PrunedTensors, kept: Tensor, W: Tensor, bias: Tensor) -> None:
        """Put a refitted weight (|S| * block, n) and bias (n,) into the pruned network, dropped channels zero."""
        dense = self.weight_tensor
        full = dense.new_zeros(dense[0].numel(), dense.shape[0])
        rows = self._rows.view(-1, self.block)[kept].reshape(-1)
        full[rows] = W.to(full.dtype)
        pruned.tensors[self.layer.weight] = full.T.reshape(dense.shape).contiguous()
        change = bias - self.bias.double()
        if self.layer.bias is not None:
            pruned.tensors[self.layer.bias] = bias.to(dense.dtype)
        elif self.norm is not None:
            name = self.traced.tensor_names[self.norm.args[3]]
            pruned.tensors[name] = (self._own[name].double() - change).to(self._own[name].dtype)
        else:
            pruned.biases[self.node] = bias.to(dense.dtype)


def geometry_of(node: fx.Node) -> Geometry:
    """Kernel, stride, padding and dilation of a convolution node.

    Raises:
        UserError: padding="same" of an even kernel, which is not the same on both sides.
    """
    kernel = tuple(node.args[1].meta["val"].shape[2:])
    def per_axis(value: Any) -> tuple[int, ...]:
        values = [value] * len(kernel) if isinstance(value, int) else list(value)
        return tuple(values * len(kernel) if len(values) == 1 else values)
    dilation = per_axis(argument(node, node.args, node.kwargs, "dilation"))
    padding = argument(node, node.args, node.kwargs, "padding")
    if padding == "valid":
        padding = 0
    elif padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if any(span % 2 for span in spans):
            raise UserError(f"{describe(node)}: padding='same' of an even kernel is not supported")
        padding = [span // 2 for span in spans]
    return Geometry(kernel, per_axis(argument(node, node.args, node.kwargs, "stride")), per_axis(padding), dilation)
