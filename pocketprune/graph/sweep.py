"""Advance the dense and the pruned network together over the calibration batches, and stop at layers.

At a stop the caller reads, batch by batch, the layer's input in the network as pruned so far, and the target that the
layer should write. The target is the dense network's output. Before an addition, the drift of the other operand is
added to it (see `branches`). The caller may then replace the layer's tensors. The pruned network goes on with them.

Each node is run once for each network and batch, and a value is freed after its last use. Between two stops the pruned
network waits in front of the layer stopped at, whose tensors may change. The dense network has already run on to the
next layer. So each network holds for each batch only the values that are still to be read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.graph.branches import Branch, find_branches, hoisted
from pocketprune.graph.cache import EnvCache
from pocketprune.graph.execution import evaluate_node
from pocketprune.graph.nodes import Env, arguments, operator_name
from pocketprune.graph.tracing import TracedNet

Mask = Callable[[fx.Node, fx.Node, Tensor], Tensor]
"""(reader, source, value) -> the value as the reader sees it once channels are removed."""


@dataclass(frozen=True)
class Replacements:
    """The network as pruned so far differs from the dense one by these tensors, in dense shapes.

    Attributes:
        tensors: replaced parameters and buffers by name.
        biases: biases given to layers that have none, by node.
        mask: for operators that read channels without a weight, which could not be zero for removed channels; None
            where no such operator reads a removed channel.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    biases: Mapping[fx.Node, Tensor] = field(default_factory=dict)
    mask: Mask | None = None

    def __bool__(self) -> bool:
        return bool(self.tensors or self.biases or self.mask)


@dataclass(frozen=True)
class Route:
    """A route says in which order a sweep runs a network, and where it stops.

    Attributes:
        traced: the network.
        order: its computing nodes; the other operand of an addition comes before the layer that corrects it.
        stops: the layers to stop at, in this order.
        branches: the additions that stops run into, by stop.
    """

    traced: TracedNet
    order: tuple[fx.Node, ...]
    stops: tuple[fx.Node, ...]
    branches: Mapping[fx.Node, Branch]

    @classmethod
    def through(cls, traced: TracedNet, stops: Sequence[fx.Node], *, branch_drift: bool = True) -> Route:
        """Return the route that stops at these layers.

        Args:
            traced: the dense network.
            stops: layers that sum over channels, in any order.
            branch_drift: whether the layers before an addition correct the drift of the other operand.
        """
        branches = find_branches(traced, stops) if branch_drift else {}
        order = hoisted(traced, branches)
        place = {node: number for number, node in enumerate(order)}
        return cls(traced, tuple(order), tuple(sorted(stops, key=place.__getitem__)), branches)

    def place(self, node: fx.Node) -> int:
        """Return a node's place in the order."""
        return self._places[node]

    @cached_property
    def _places(self) -> dict[fx.Node, int]:
        return {node: number for number, node in enumerate(self.order)}

    def names_before(self, number: int) -> set[str]:
        """Return the names of the parameters and buffers that are read before stop `number`."""
        names = self.traced.tensor_names
        nodes = self.order[: self.place(self.stops[number])]
        return {names[source] for node in nodes for source in node.all_input_nodes if source in names}


class Sweep:
    """A sweep passes once over a network along a route.

    Args:
        route: the dense network, and where to stop.
        batches: calibration inputs, each what the network takes.
        cache_gb: GiB of values held in memory between stops; the rest goes to disk.
        pruned: how the network as pruned so far differs; to be assigned anew after each stop that changes it.
    """

    def __init__(
        self, route: Route, batches: Sequence[Any], *, cache_gb: float = 4.0, pruned: Replacements | None = None
    ) -> None:
        self.traced, self.batches = route.traced, batches
        self.pruned = pruned or Replacements()
        self.order, self.stops, self.branches = route.order, route.stops, route.branches
        self._places = [route.place(stop) for stop in self.stops]
        self._last_use = self._find_last_uses(route.place)
        self._dense, self._pruned = EnvCache(cache_gb / 2), EnvCache(cache_gb / 2)
        self._own = self.traced.named_tensors()
        self._at = -1

    def _find_last_uses(self, place: Callable[[fx.Node], int]) -> dict[fx.Node, int]:
        last: dict[fx.Node, int] = {}
        for node in self.order:
            for source in node.all_input_nodes:
                last[source] = max(last.get(source, -1), place(node))
        for stop, branch in self.branches.items():  # a layer's target is computed from the other operand
            last[branch.other] = max(last.get(branch.other, -1), place(stop))
        for source in self.traced.output_node.all_input_nodes:
            last.pop(source, None)
        return last

    def __iter__(self) -> Iterator[fx.Node]:
        """Stop at the layers in forward order.

        At each stop `rows` must be read to its end, once. After that `pruned` may be assigned anew.
        """
        for number, stop in enumerate(self.stops):
            self._at = number
            yield stop

    @torch.no_grad()
    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each batch the input of the layer stopped at (pruned network) and its target (dense network)."""
        number = self._at
        here = self._places[number]
        ahead = self._places[number + 1] if number + 1 < len(self._places) else here
        start = self._places[number - 1] if number else 0
        changed = bool(self.pruned)
        for i in range(len(self.batches)):
            dense = self._dense.take(i) if number else self._advance(self._inputs(i), 0, here, None)
            pruned = self._pruned.take(i) if number else self._inputs(i)
            pruned = self._advance(pruned, start, here, self.pruned) if changed else dict(dense)
            yield self._pair(self.stops[number], dense, pruned)
            self._pruned.put(i, pruned)
            self._dense.put(i, self._advance(dense, here, ahead, None))

    def _inputs(self, i: int) -> Env:
        values = self.traced.bind(self.batches[i])
        return {node: values[node] for node in self.traced.input_nodes}

    def _pair(self, node: fx.Node, dense: Env, pruned: Env) -> tuple[Tensor, Tensor]:
        """Return a layer's input and target for one batch."""
        target: Tensor = self._evaluate(node, dense, None)
        dense[node] = target  # the dense network continues with it
        branch: Branch | None = self.branches.get(node)
        if branch is not None and dense[branch.other] is not pruned[branch.other]:
            target = target + branch.in_layer_units(dense[branch.other] - pruned[branch.other], self._own)
        return pruned[arguments(node)[0]], target

    def _advance(self, env: Env, start: int, end: int, pruned: Replacements | None) -> Env:
        """Run the nodes of [start, end) whose values are not known, and free every value after its last use."""
        for position in range(start, end):
            node = self.order[position]
            if node not in env:
                env[node] = self._evaluate(node, env, pruned)
            for source in node.all_input_nodes:
                if self._last_use.get(source, -1) <= position and source in env and source in self._last_use:
                    del env[source]
        return {n: v for n, v in env.items() if self._last_use.get(n, -1) >= end}

    def _evaluate(self, node: fx.Node, env: Env, pruned: Replacements | None) -> Any:
        """Return a node's value. Parameters come from the pruned network where one is given."""
        local = dict(env)
        for source in node.all_input_nodes:
            if pruned is not None and pruned.mask is not None and isinstance(local.get(source), Tensor):
                local[source] = pruned.mask(node, source, local[source])
            name = self.traced.tensor_names.get(source)
            if name is not None:
                replaced = pruned.tensors.get(name) if pruned is not None else None
                local[source] = self._own[name] if replaced is None else replaced
            elif source in self.traced.constants:
                local[source] = self.traced.constants[source]
        value = evaluate_node(node, local)
        if pruned is not None and node in pruned.biases:
            bias = pruned.biases[node]
            value = value + (bias if operator_name(node) == "linear" else bias.view(-1, *[1] * (value.dim() - 2)))
        return value
