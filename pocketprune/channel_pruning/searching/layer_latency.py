"""The milliseconds of a network thinned to any counts: the sum of its layers' times, which are measured one by one.

A layer is timed with the batch norm and the activation that follow it, at its width in the thinned network. One that
reads a subset of a shared input is timed with the sampler that gathers it. A layer that is timed alone finds its
operands in the cache, and the sum lacks the operators between the layers. The sum is therefore scaled and shifted to be
right for two whole networks: the dense one and one of half the width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.geometry import geometry_of
from pocketprune.deploy.latency import measure_latency
from pocketprune.deploy.latency_table import LatencyTable, LayerLatency
from pocketprune.graph.nodes import arguments, tensors_in
from pocketprune.graph.tracing import node_shape, operator_name
from pocketprune.structure.batches import at_batch
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import CostModel
from pocketprune.structure.propagation import Contraction
from pocketprune.training.distributed import gather_objects, is_main

REPEATS = 9
CONVOLUTIONS = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}

Widths = Callable[[np.ndarray], tuple[int, int]]
"""Unit counts -> numbers of input and output channels of a layer."""


class LatencyCost:
    """The milliseconds of a batch, as a function of the cost model's unit counts.

    Args:
        path: JSON file of measured times, which is reused and completed; None keeps them in memory.
        batch: number of images.
        device: where to measure.
        together: whether all processes prepare the same network: the first one then measures for all of them.
    """

    def __init__(
        self, path: Path | None, *, batch: int, device: torch.device | str = "cpu", together: bool = False
    ) -> None:
        self.batch, self.device, self._together = batch, torch.device(device), together
        self.table = LatencyTable(path, device=str(device))
        self._layers: dict[fx.Node, tuple[LayerLatency, Widths]] = {}
        self._scale, self._rest = 1.0, 0.0

    def prepare(
        self, structure: Structure, model: CostModel, half: Sequence[int], halved: Callable[[], nn.Module]
    ) -> None:
        """Measure or look up the times of a network's layers, and of the whole network at its dense and `half` counts.

        Args:
            structure: the analysed network.
            model: its cost model.
            half: unit counts of a network of about half the width.
            halved: returns the network thinned to them.
        """
        if not self._together or is_main():
            self._look_up(structure, model, half, halved)
        if self._together:
            times = gather_objects(self.table.known)[0]
            if not is_main():
                self.table.known.update(times)
                self._look_up(structure, model, half, halved)

    def _look_up(
        self, structure: Structure, model: CostModel, half: Sequence[int], halved: Callable[[], nn.Module]
    ) -> None:
        for layer in structure.contractions:
            plain = layer.carrier or layer.groups == 1
            if operator_name(layer.node) in (*CONVOLUTIONS, "linear") and plain:
                self._layers[layer.node] = self._timed(layer, model)
        full = model.full_counts
        dense = self._whole(structure, full, lambda: structure.traced.net)
        thin = self._whole(structure, half, halved)
        layers, fewer = self(full), self(half)
        slope = (dense - thin) / (layers - fewer) if layers > fewer else 0.0
        # Some of the whole time depends on the width, but not all of it. A slope that says otherwise is noise.
        self._scale = slope if 0 < slope < dense / layers else dense / layers
        self._rest = dense - self._scale * layers

    def __call__(self, counts: Sequence[int]) -> float:
        """Return the milliseconds of the network thinned to these unit counts."""
        at = np.asarray(counts, dtype=float)
        return self._rest + self._scale * sum(time_of(*widths(at)) for time_of, widths in self._layers.values())

    def saves(self, node: fx.Node, kept: int) -> bool:
        """Return whether a sampled layer is quicker at `kept` inputs than at all of them, at half of its outputs."""
        time_of, _ = self._layers[node]
        return time_of.saves(kept, time_of.columns[-1] // 2)

    def _timed(self, layer: Contraction, model: CostModel) -> tuple[LayerLatency, Widths]:
        inputs, outputs = model.widths(layer.node)
        shape, weight = (node_shape(argument) for argument in arguments(layer.node)[:2])
        full_in = weight[1] if layer.carrier else shape[1 if operator_name(layer.node) != "linear" else -1]

        def widths(at: np.ndarray) -> tuple[int, int]:
            read = full_in if layer.carrier else round(inputs.at(at))
            return read, round(outputs.at(at))

        name = f"{operator_name(layer.node)} {weight[2:]} of {shape[2:]} groups {layer.groups} batch {self.batch}"
        if operator_name(layer.node) != "linear":
            name += f" stride {geometry_of(layer.node).stride}"
        sampled = model.is_sampled(layer.node)
        measure = self._measure(layer.node, layer, full_in if sampled else None)
        if sampled:
            name += f" sampled of {full_in}"
        return LayerLatency(self.table, name, full_in, weight[0], measure, sampled=sampled), widths

    def _measure(self, node: fx.Node, layer: Contraction, sampled_of: int | None) -> Callable[[int, int], float]:
        """Return what times the layer at two widths, its input gathered from `sampled_of` channels if it is given."""
        shape, weight_shape = (node_shape(argument) for argument in arguments(node)[:2])
        taps = weight_shape[2:]

        def read(x: Tensor, axis: int, inputs: int) -> Tensor:
            return x if x.shape[axis] == inputs else x.index_select(axis, torch.arange(inputs, device=self.device))

        def measure(inputs: int, outputs: int) -> float:
            if operator_name(node) == "linear":
                x = torch.randn(self.batch, *shape[1:-1], sampled_of or inputs, device=self.device)
                weight = torch.randn(outputs, inputs, device=self.device)
                return self._median(lambda: F.relu(F.linear(read(x, -1, inputs), weight)))
            groups = outputs if layer.carrier else 1
            width = groups if layer.carrier else inputs
            x = torch.randn(self.batch, sampled_of or width, *shape[2:], device=self.device)
            weight = torch.randn(outputs, 1 if layer.carrier else inputs, *taps, device=self.device)
            scale, g = torch.ones(outputs, device=self.device), geometry_of(node)
            convolution = CONVOLUTIONS[operator_name(node)]

            def once() -> Tensor:
                y = convolution(read(x, 1, width), weight, None, g.stride, g.padding, g.dilation, groups)
                return F.relu(F.batch_norm(y, scale, scale, scale, scale))

            return self._median(once)

        return measure

    def _whole(self, structure: Structure, counts: Sequence[int], build: Callable[[], nn.Module]) -> float:
        """Return the milliseconds of the whole network thinned to these counts."""
        net: nn.Module = structure.traced.net
        example = at_batch(structure.traced.example, self.batch)
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors_in(example)]
        shape = shapes[0] if len(shapes) == 1 else tuple(shapes)
        parameters = sum(p.numel() for p in net.parameters())
        kept = " ".join(map(str, counts))
        name = f"{type(net).__name__} of {parameters} parameters, {shape}, batch {self.batch}, kept {kept}"
        inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(self.device), example)
        return self.table.milliseconds(name, lambda: measure_latency(build(), inputs, repeats=REPEATS))

    @torch.inference_mode()
    def _median(self, run: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(REPEATS + 2):
            began = time.perf_counter()
            run()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - began) * 1e3)
        return statistics.median(times[2:])
