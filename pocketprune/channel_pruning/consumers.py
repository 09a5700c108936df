"""One layer as the mathematics sees it: patches, targets, weight blocks, and the place of the refitted weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, fx

from pocketprune.channel_pruning.geometry import geometry_of
from pocketprune.common.errors import UserError
from pocketprune.graph.branches import following_norm, norm_scale
from pocketprune.graph.nodes import arguments
from pocketprune.graph.sweep import Sweep
from pocketprune.graph.tracing import TracedNet, operator_name
from pocketprune.numerics.evidence import ConsumerSlice
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import expand_blocks, refit, relative_error
from pocketprune.structure.cost_model import Decision
from pocketprune.structure.layers import can_have_bias
from pocketprune.structure.propagation import Contraction

Fit = tuple[Tensor, Tensor]
"""A weight (|S| * block, n) and a bias (n,)."""


class Consumer:
    """A convolution or linear layer whose input channels are selected and whose weight is refitted.

    A convolution of several groups counts as several small ones side by side that keep the same places. The lists below
    have one entry for each of them.

    Attributes:
        decision: the units of its input, of which it keeps some.
        weight_name: name of the weight tensor.
        conv_groups: groups of the convolution; 1 for a linear layer.
        metric: (n,) how much selection weighs the error of each output; None for `output_weights`.
        block: rows of a patch that belong to one unit (channels per unit times kernel size).
        bias_place: where a refitted bias goes: the layer's own "bias", the running mean of the "norm" that follows, a
            "new" bias, or "" if another layer reads each of these places.

    Raises:
        ValueError: the layer has no weight tensor.
    """

    def __init__(self, traced: TracedNet, decision: Decision, metric: Tensor | None = None) -> None:
        self.traced, self.decision, self.metric = traced, decision, metric
        self.layer: Contraction = decision.layer.layer
        if self.layer.weight is None:
            raise ValueError(f"{self.layer.node} has no weight")
        self.weight_name = self.layer.weight
        self.node: fx.Node = self.layer.node
        self.conv_groups = self.layer.groups
        self.geometry = geometry_of(self.node) if operator_name(self.node) != "linear" else None
        self.norm = following_norm(self.node)
        self.bias_place = self._find_bias_place()
        self._own = traced.named_tensors()
        taps = self.weight_tensor.shape[2:].numel()
        self.block: int = decision.units.shape[1] * taps
        rows = torch.from_numpy(decision.units)[:, :, None] * taps + torch.arange(taps)
        self._rows = rows.reshape(-1).to(self.weight_tensor.device)

    def _find_bias_place(self) -> str:
        """Return a place that no other layer reads, because a tensor of two layers cannot hold the bias of both."""
        if self.layer.bias is not None and self.traced.reader_count(self.layer.bias) == 1:
            return "bias"
        if self._mean_name is not None and self.traced.reader_count(self._mean_name) == 1:
            return "norm"
        return "new" if self.layer.bias is None and can_have_bias(self.traced, self.layer) else ""

    @property
    def _mean_name(self) -> str | None:
        """The name of the running mean of the norm that follows; None without such a norm."""
        return None if self.norm is None else self.traced.tensor_names[arguments(self.norm)[3]]

    @property
    def weight_tensor(self) -> Tensor:
        """The dense weight."""
        return self._own[self.weight_name].detach()

    @property
    def weights(self) -> list[Tensor]:
        """The dense weights as the moments see them: (d, n) each, with rows in the order of the units."""
        return [part.flatten(1).T[self._rows] for part in self.weight_tensor.chunk(self.conv_groups)]

    @property
    def biases(self) -> list[Tensor]:
        """The dense biases (n,) in float64. They are zero if the layer has none."""
        n = self.weight_tensor.shape[0]
        bias = self._own[self.layer.bias].detach() if self.layer.bias else self.weight_tensor.new_zeros(n)
        return list(bias.double().chunk(self.conv_groups))

    @property
    def output_weights(self) -> list[Tensor | None]:
        """The squared scales (n,) of the batch norm that follows the outputs, or None."""
        if self.norm is None:
            return [None] * self.conv_groups
        scale = norm_scale(self.norm, self.traced.tensor_names, self._own)
        return list(scale.square().chunk(self.conv_groups))

    @property
    def selection_weights(self) -> list[Tensor | None]:
        """How much the error of each output (n,) counts where channels are selected."""
        return self.output_weights if self.metric is None else list(self.metric.chunk(self.conv_groups))

    def new_moments(self) -> list[Moments]:
        """Return moments of no rows."""
        n, device = self.weight_tensor.shape[0] // self.conv_groups, self.weight_tensor.device
        return [Moments.zeros(len(self._rows), n, device) for _ in range(self.conv_groups)]

    def update(
        self, moments: list[Moments], x: Tensor, target: Tensor, points: int, draw: Callable[[int, int], Tensor]
    ) -> None:
        """Add a batch to the moments.

        Args:
            moments: those of the layer.
            x: the layer's input.
            target: the target of its output.
            points: number of positions per image; 0 stands for all.
            draw: returns random positions for (images, places).
        """
        if self.geometry is None:
            moments[0].update(x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1]))
            return
        places = target.shape[2:].numel()
        positions = draw(len(x), places) if 0 < points < places else None
        g, x = self.geometry, self.geometry.padded(x)
        groups = zip(moments, x.chunk(self.conv_groups, 1), target.chunk(self.conv_groups, 1), strict=True)
        for part, x_part, y_part in groups:
            part.update_conv(x_part, y_part, g.kernel, g.stride, g.padding, g.dilation, positions)

    def check(self, moments: list[Moments]) -> None:
        """Raise UserError if the layer met NaN or infinite values."""
        if not all(bool(m.sigma.isfinite().all() and m.A.diagonal().isfinite().all()) for m in moments):
            raise UserError(
                f"layer '{self.decision.layer.name}' meets NaN or infinite values on them", argument="batches"
            )

    def ordered(self, moments: list[Moments]) -> list[Moments]:
        """Return the moments with patch rows in the order of the units, each unit's rows together.

        If a refitted bias has no place, the moments are those of the targets minus the layer's bias, about zero. A
        refit to them has no intercept.
        """
        moments = [m.without_noise(torch.finfo(self.weight_tensor.dtype).eps) for m in moments]
        if not self.bias_place:
            moments = [_about(m, bias).through_origin() for m, bias in zip(moments, self.biases, strict=True)]
        r = self._rows
        if bool((r == torch.arange(len(r), device=r.device)).all()):
            return moments
        return [Moments(m.count, m.mean_x[r], m.mean_y, m.A[r][:, r], m.B[r], m.sigma) for m in moments]

    def dense(self, kept: Tensor) -> list[Fit]:
        """Return the old weight on the kept units, and the old bias, which is zero if none can be refitted."""
        rows = expand_blocks(kept, self.block)
        biases = self.biases if self.bias_place else [torch.zeros_like(bias) for bias in self.biases]
        return [(w[rows].double(), b) for w, b in zip(self.weights, biases, strict=True)]

    def slices(self, moments: list[Moments]) -> list[ConsumerSlice]:
        """Return what a criterion reads of the layer, given its moments."""
        parts = zip(self.weights, moments, self.selection_weights, strict=True)
        return [ConsumerSlice(weight, self.block, m, scale) for weight, m, scale in parts]

    def refit(self, moments: list[Moments], kept: Tensor, ridge: float) -> list[Fit]:
        """Return the least-squares weight and bias on the kept units."""
        return [refit(m, w, kept, self.block, ridge) for m, w in zip(moments, self.weights, strict=True)]

    def error(self, moments: list[Moments], fits: list[Fit], kept: Tensor) -> float:
        """Return the error of the output over the variance of the targets, summed over all parts."""
        total = variance = 0.0
        for m, (W, b), scale in zip(moments, fits, self.output_weights, strict=True):
            share = float((m.sigma if scale is None else m.sigma * scale).sum())
            total += share * relative_error(m, W, kept, self.block, scale, b) if share > 0 else 0.0
            variance += share
        return total / variance if variance > 0 else 0.0

    def refitted(self, kept: Tensor, fits: list[Fit]) -> tuple[dict[str, Tensor], dict[fx.Node, Tensor]]:
        """Return refitted tensors by name, and new biases by node.

        The tensors have dense shapes, with zeros for dropped units.
        """
        dense = self.weight_tensor
        rows = self._rows.view(-1, self.block)[kept].reshape(-1)
        full = dense.new_zeros(dense[0].numel(), dense.shape[0])
        full[rows] = torch.cat([W for W, _ in fits], dim=1).to(full.dtype)
        tensors = {self.weight_name: full.T.reshape(dense.shape).contiguous()}
        bias, mean_name = torch.cat([b for _, b in fits]), self._mean_name
        if self.bias_place == "bias" and self.layer.bias is not None:
            tensors[self.layer.bias] = bias.to(dense.dtype)
        elif self.bias_place == "norm" and mean_name is not None:
            mean, old = self._own[mean_name], torch.cat(self.biases)
            tensors[mean_name] = (mean.double() - (bias - old)).to(mean.dtype)
        return tensors, {self.node: bias.to(dense.dtype)} if self.bias_place == "new" else {}

    def change(self, kept: Tensor, fits: list[Fit]) -> tuple[Tensor, Tensor]:
        """Return what refitted weights and biases add to the dense weight, in its shape, and to the bias (n,)."""
        weight = self.refitted(kept, fits)[0][self.weight_name] - self.weight_tensor
        bias = torch.cat([b for _, b in fits]) - torch.cat(self.biases)
        return weight, bias if self.bias_place else torch.zeros_like(bias)


def _about(moments: Moments, bias: Tensor) -> Moments:
    """Return the moments of the targets minus a bias (n,)."""
    m = moments
    return Moments(m.count, m.mean_x, m.mean_y - bias.to(m.mean_y), m.A, m.B, m.sigma)


def moments_of(
    sweep: Sweep,
    consumers: Mapping[fx.Node, Consumer],
    points: int,
    draw: Callable[[int, int], Tensor],
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[Consumer, list[Moments]]]:
    """Yield each consumer at which a sweep stops, with the moments of this process's inputs.

    Args:
        sweep: the sweep.
        consumers: by the nodes at which it stops.
        points: as for `Consumer.update`.
        draw: as for `Consumer.update`.
        progress: called with (layer, done, total) before each consumer.
    """
    for number, stop in enumerate(sweep):
        consumer = consumers[stop]
        progress(consumer.decision.layer.name, number, len(consumers))
        moments = consumer.new_moments()
        for x, target in sweep.rows():
            consumer.update(moments, x, target, points, draw)
        yield consumer, moments
