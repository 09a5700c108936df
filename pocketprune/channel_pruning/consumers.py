"""One layer as the mathematics sees it: patches, targets, weight blocks, and where the refitted weight goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.common.errors import UserError
from pocketprune.graph.branches import following_norm, norm_scale
from pocketprune.graph.sweep import PrunedTensors, Sweep
from pocketprune.graph.tracing import TracedNet, describe, operator_name
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import expand_blocks, refit, relative_error
from pocketprune.structure.cost_model import Decision
from pocketprune.structure.layers import can_have_bias
from pocketprune.structure.propagation import Contraction
from pocketprune.structure.propagation.rules import argument


@dataclass(frozen=True)
class Geometry:
    """Where a convolution's patches lie, per spatial axis; a linear layer has none."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


Fit = tuple[Tensor, Tensor]
"""A weight (|S| * block, n) and a bias (n,)."""


class Consumer:
    """A conv or linear layer whose input channels are chosen among and whose weight is refitted.

    A convolution of several groups is as many small ones side by side (`parts`) that keep the same places; everything
    below is a list with one entry a part.

    Attributes:
        intercept: whether the layer has, or can be given, a place for a bias.
        block: rows of a patch that belong to one unit (channels per unit times kernel size).
        parts: groups of the convolution.
    """

    def __init__(self, traced: TracedNet, decision: Decision) -> None:
        self.traced, self.decision = traced, decision
        self.layer: Contraction = decision.layer.layer
        self.node: fx.Node = self.layer.node
        self.parts = self.layer.groups
        self.geometry = geometry_of(self.node) if operator_name(self.node) != "linear" else None
        self.norm = following_norm(self.node)
        self.intercept = self.layer.bias is not None or self.norm is not None or can_have_bias(traced, self.layer)
        self._own = traced.named_tensors()
        taps = self.weight_tensor.shape[2:].numel()
        self.block = decision.units.shape[1] * taps
        rows = torch.from_numpy(decision.units)[:, :, None] * taps + torch.arange(taps)
        self._rows = rows.reshape(-1).to(self.weight_tensor.device)

    @property
    def weight_tensor(self) -> Tensor:
        return self._own[self.layer.weight].detach()

    @property
    def weights(self) -> list[Tensor]:
        """The dense weight of each part as the moments see it, (d, n), rows in the order of the units."""
        return [part.flatten(1).T[self._rows] for part in self.weight_tensor.chunk(self.parts)]

    @property
    def biases(self) -> list[Tensor]:
        """The dense bias of each part (n,), zeros where the layer has none."""
        n = self.weight_tensor.shape[0]
        bias = self._own[self.layer.bias].detach() if self.layer.bias else self.weight_tensor.new_zeros(n)
        return list(bias.double().chunk(self.parts))

    @property
    def output_weights(self) -> list[Tensor | None]:
        """Squared scale (n,) of the batch norm that follows each part's outputs, or None."""
        if self.norm is None:
            return [None] * self.parts
        return list(norm_scale(self.norm, self.traced.tensor_names, self._own).square().chunk(self.parts))

    def new_moments(self) -> list[Moments]:
        n, device = self.weight_tensor.shape[0] // self.parts, self.weight_tensor.device
        return [Moments.zeros(len(self._rows), n, device) for _ in range(self.parts)]

    def update(
        self, moments: list[Moments], x: Tensor, target: Tensor, points: int, draw: Callable[[int, int], Tensor]
    ) -> None:
        """Add a batch: the layer's input and the target of its output, at `points` positions an image (0 = all)."""
        if self.geometry is None:
            moments[0].update(x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1]))
            return
        places = target.shape[2:].numel()
        positions = draw(len(x), places) if 0 < points < places else None
        g = self.geometry
        for part, x_part, y_part in zip(moments, x.chunk(self.parts, 1), target.chunk(self.parts, 1), strict=True):
            part.update_conv(x_part, y_part, g.kernel, g.stride, g.padding, g.dilation, positions)

    def check(self, moments: list[Moments]) -> None:
        """Raise UserError where the layer met values that are no numbers."""
        if not all(bool(m.sigma.isfinite().all() and m.A.diagonal().isfinite().all()) for m in moments):
            raise UserError(
                f"calibration_batches: layer '{self.decision.layer.name}' meets NaN or infinite values on them"
            )

    def ordered(self, moments: list[Moments]) -> list[Moments]:
        """The moments with patch rows in the order of the units, each unit's rows together.

        Of a layer that can have no bias they are taken about zero, so that no refit asks for one.
        """
        moments = [m.without_noise(torch.finfo(self.weight_tensor.dtype).eps) for m in moments]
        if not self.intercept:
            moments = [m.through_origin() for m in moments]
        r = self._rows
        if bool((r == torch.arange(len(r), device=r.device)).all()):
            return moments
        return [Moments(m.count, m.mean_x[r], m.mean_y, m.A[r][:, r], m.B[r], m.sigma) for m in moments]

    def dense(self, kept: Tensor) -> list[Fit]:
        """The old weight on the kept units, and the old bias."""
        rows = expand_blocks(kept, self.block)
        return [(w[rows].double(), b) for w, b in zip(self.weights, self.biases, strict=True)]

    def refit(self, moments: list[Moments], kept: Tensor, ridge: float) -> list[Fit]:
        """The least-squares weight and bias on the kept units."""
        return [refit(m, w, kept, self.block, ridge) for m, w in zip(moments, self.weights, strict=True)]

    def error(self, moments: list[Moments], fits: list[Fit], kept: Tensor) -> float:
        """Error of the kept units' output over the targets' variance, all parts together."""
        total = variance = 0.0
        for m, (W, b), scale in zip(moments, fits, self.output_weights, strict=True):
            share = float((m.sigma if scale is None else m.sigma * scale).sum())
            total += share * relative_error(m, W, kept, self.block, scale, b) if share > 0 else 0.0
            variance += share
        return total / variance if variance > 0 else 0.0

    def install(self, pruned: PrunedTensors, kept: Tensor, fits: list[Fit]) -> None:
        """Put refitted weights and biases into the pruned network, dropped channels zero."""
        dense = self.weight_tensor
        rows = self._rows.view(-1, self.block)[kept].reshape(-1)
        full = dense.new_zeros(dense[0].numel(), dense.shape[0])
        full[rows] = torch.cat([W for W, _ in fits], dim=1).to(full.dtype)
        pruned.tensors[self.layer.weight] = full.T.reshape(dense.shape).contiguous()
        bias = torch.cat([b for _, b in fits])
        if self.layer.bias is not None:
            pruned.tensors[self.layer.bias] = bias.to(dense.dtype)
        elif self.norm is not None:
            name = self.traced.tensor_names[self.norm.args[3]]
            pruned.tensors[name] = (self._own[name].double() - bias).to(self._own[name].dtype)
        elif self.intercept:
            pruned.biases[self.node] = bias.to(dense.dtype)


class Positions:
    """Random output positions, each process's own; `state` continues them after an interruption."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: int, places: int) -> Tensor:
        """Positions (p,) shared by the images of a batch, out of `places`."""
        return torch.randperm(places, generator=self.generator)[: min(self.count, places)].to(self.device)


def moments_of(
    sweep: Sweep,
    consumers: Mapping[fx.Node, Consumer],
    points: int,
    draw: Callable[[int, int], Tensor],
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[Consumer, list[Moments]]]:
    """Each consumer that a sweep stops at, with the moments of this process's inputs.

    Args:
        points, draw: as for `Consumer.update`.
        progress: called with (layer, done, total) before each.
    """
    for number, stop in enumerate(sweep):
        consumer = consumers[stop]
        progress(consumer.decision.layer.name, number, len(consumers))
        moments = consumer.new_moments()
        for x, target in sweep.rows():
            consumer.update(moments, x, target, points, draw)
        yield consumer, moments


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
