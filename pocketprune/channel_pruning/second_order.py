"""What a change of a layer's output does to the network's output, to second order, from the dense network alone.

A cut changes a layer's output by d, which is known for each image and position: the layer with the difference of the
two weights, on the dense network's input. With the gradient g of a probe (`numerics.curvature`), the divergence is
(sum of g d)^2 / 2, the sum taken over channels and positions of one image. Errors of neighbouring positions add up in
it, as they do in the network. One backward pass serves all layers and counts. The mean of g^2 alone, for each channel,
is the metric by which a selection weighs a layer's outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.common.inputs import ExampleInputs
from pocketprune.graph.execution import evaluate_node
from pocketprune.graph.nodes import Env, arguments, operator_name, tensors_in
from pocketprune.graph.tracing import TracedNet
from pocketprune.numerics.curvature import divergence_probe

IMAGES = 8
"""Images whose intermediate values are held at once."""


@dataclass(frozen=True)
class Change:
    """A change of one layer: the differences of its weight, in dense shape, and of its bias (n,)."""

    node: fx.Node
    weight: Tensor
    bias: Tensor


Numbered = tuple[Any, Sequence[int]]
"""Inputs of the network, and a number for each of their images, from which its random draws follow."""

Cuts = Sequence[Sequence[Change]]
"""The changed layers of several cuts."""


def second_order_costs(
    traced: TracedNet, cuts: Cuts, batches: Iterable[Numbered], *, probes: int = 2, seed: int = 0
) -> tuple[Tensor, int]:
    """Return the sum over images of each cut's divergence to second order (cuts,), and the number of images.

    Args:
        traced: the dense network.
        cuts: the changes to compare. Each layer of a cut reads the dense network's values.
        batches: inputs, with numbers of their own for the images.
        probes: backward passes for each image.
        seed: of the probes.
    """
    nodes = {change.node for cut in cuts for change in cut}
    total, images = torch.zeros(len(cuts), dtype=torch.float64), 0
    for batch in batches:
        for part, numbers in _parts(batch):
            count = len(numbers)
            inputs, gradients = _differentiated(traced, part, nodes, _seeds(numbers, probes, seed))
            effects = torch.zeros(len(cuts), probes, count, dtype=torch.float64)
            for number, cut in enumerate(cuts):
                for change in cut:
                    moved = _moved(change, inputs[change.node]).reshape(count, -1)
                    for probe in range(probes):
                        effects[number, probe] += _products(gradients[change.node][probe], moved)
            total += effects.square().mean(1).sum(1) / 2
            images += count
    return total, images


def output_metric(
    traced: TracedNet, nodes: Iterable[fx.Node], batches: Iterable[Numbered], *, probes: int = 1, seed: int = 0
) -> dict[fx.Node, Tensor]:
    """Return for each layer the sum (n,) of g^2 over images, positions and probes, for each output channel.

    Args:
        traced: the dense network.
        nodes: the layers.
        batches: inputs, with numbers of their own for the images.
        probes: backward passes for each image.
        seed: of the probes.
    """
    found: dict[fx.Node, Tensor] = {}
    for batch in batches:
        for part, numbers in _parts(batch):
            _, gradients = _differentiated(traced, part, set(nodes), _seeds(numbers, probes, seed))
            for node, each in gradients.items():
                axis = -1 if operator_name(node) == "linear" else 1
                squares = sum(g.movedim(axis, 0).flatten(1).double().square().sum(1) for g in each)
                assert isinstance(squares, Tensor)  # there is at least one probe
                found[node] = found[node] + squares if node in found else squares
    return found


def _products(gradient: Tensor, moved: Tensor) -> Tensor:
    """Return the product for each image (N,)."""
    return (gradient.reshape(moved.shape) * moved).sum(1).double().cpu()


def _parts(batch: Numbered) -> Iterator[Numbered]:
    """Yield a batch in pieces of a few images."""
    inputs, numbers = batch
    for start in range(0, len(numbers), IMAGES):

        def rows(tensor: Tensor, start: int = start) -> Tensor:
            return tensor[start : start + IMAGES] if tensor.dim() and len(tensor) == len(numbers) else tensor

        yield pytree.tree_map_only(Tensor, rows, inputs), numbers[start : start + IMAGES]


def _seeds(numbers: Sequence[int], probes: int, seed: int) -> list[list[int]]:
    """Return the seeds of each probe, one for each image."""
    return [[hash((seed, probe, number)) & 0x7FFFFFFFFFFFFFFF for number in numbers] for probe in range(probes)]


def _differentiated(
    traced: TracedNet, batch: ExampleInputs, nodes: set[fx.Node], seeds: Sequence[Sequence[int]]
) -> tuple[dict[fx.Node, Env], dict[fx.Node, list[Tensor]]]:
    """Return the values that each of the nodes reads, and for each the gradients of the probes at its output."""
    env: Env = {n: v.detach() if isinstance(v, Tensor) else v for n, v in traced.bind(batch).items()}
    reached: dict[fx.Node, Tensor] = {}
    inputs: dict[fx.Node, Env] = {}
    with torch.enable_grad():
        for node in traced.call_nodes():
            env[node] = evaluate_node(node, env)
            if node in nodes:
                inputs[node] = {
                    n: env[n].detach() if isinstance(env[n], Tensor) else env[n] for n in node.all_input_nodes
                }
                env[node] = env[node] if env[node].requires_grad else env[node].detach().requires_grad_()
                reached[node] = env[node]
        outputs = [t for t in tensors_in([env[n] for n in traced.output_node.all_input_nodes]) if t.requires_grad]
    gradients: dict[fx.Node, list[Tensor]] = {node: [] for node in reached}
    for number, drawn in enumerate(seeds):
        found = _gradients(outputs, list(reached.values()), drawn, again=number + 1 < len(seeds))
        for node, gradient in zip(reached, found, strict=True):
            gradients[node].append(gradient)
    return inputs, gradients


def _gradients(
    outputs: Sequence[Tensor], values: Sequence[Tensor], seeds: Sequence[int], *, again: bool
) -> list[Tensor]:
    """Return the gradients of one probe of the outputs at some values: zeros where the outputs do not depend on them.

    Args:
        outputs: those of the network that can be differentiated.
        values: of layers.
        seeds: of the probe, one for each image.
        again: whether another probe of the same outputs follows.
    """
    if not outputs:
        return [torch.zeros_like(value) for value in values]
    with torch.enable_grad():
        probe = divergence_probe(outputs, seeds)
    found = torch.autograd.grad(probe, values, retain_graph=again, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(values, found, strict=True)]


def _moved(change: Change, inputs: Mapping[fx.Node, Any]) -> Tensor:
    """Return the change of a layer's output."""
    weight, *rest = arguments(change.node)[1:]
    local = {**inputs, weight: change.weight}
    bias = rest[0] if rest else None
    if isinstance(bias, fx.Node):
        biased: Tensor = evaluate_node(change.node, {**local, bias: change.bias.to(change.weight.dtype)})
        return biased
    value: Tensor = evaluate_node(change.node, local)
    shape = (-1,) if operator_name(change.node) == "linear" else (-1, *[1] * (value.dim() - 2))
    return value + change.bias.to(value.dtype).view(shape)
