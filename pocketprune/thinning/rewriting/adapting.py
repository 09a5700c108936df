"""Where every value becomes thinner, and the arguments that count channels rewritten accordingly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import arguments, operator_name, operator_of, schema_of
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.propagation import Identified, varying
from pocketprune.structure.propagation.rules import identified_in

Kept = dict[int, Tensor]
"""axis -> kept positions, for the axes that become shorter."""


class Builder(Protocol):
    """What a rewrite may ask of the graph under construction."""

    graph: fx.Graph

    def value(self, node: Any) -> Any:
        """The new graph's node for an old one."""

    def constant(self, tensor: Tensor) -> fx.Node:
        """A node that holds a tensor."""

    def copy(self, node: fx.Node, args: Any, kwargs: Any) -> fx.Node:
        """The old node's operator applied to these arguments."""


Rewrite = Callable[["Adapter", fx.Node, Builder], Any]
"""What takes a node's place: a node, or a tuple of nodes for an operator with several results."""


class Adapter:
    """Knows which positions of every value are removed and emits nodes that reckon with it."""

    def __init__(self, structure: Structure, removed: np.ndarray, rewrites: Mapping[str, Rewrite]) -> None:
        self.rewrites = rewrites
        self.values = structure.values
        gone = removed[structure.classes]
        self._gone = torch.from_numpy(gone)
        self._free = self._gone.clone()
        self._free[0] = True  # padded zeros go with whatever channel they lie in
        self._kept: dict[int, Kept] = {}
        self.numbers: dict[fx.Node, Any] = {}

    def kept(self, value: Any) -> Kept:
        """Kept positions along each axis of a value that loses some."""
        if not isinstance(value, Identified):
            return {}
        if id(value) not in self._kept:
            self._kept[id(value)] = self._kept_positions(value)
        return self._kept[id(value)]

    def _kept_positions(self, value: Identified) -> Kept:
        result: Kept = {}
        for facet in value.facets:
            axes = varying(facet)
            core = facet[tuple(slice(None) if d in axes else 0 for d in range(facet.dim()))]
            if not bool(self._gone[core].any()):
                continue
            for position, axis in enumerate(axes):
                others = tuple(d for d in range(core.dim()) if d != position)
                lost = (
                    self._free[core].amin(dim=others) & self._gone[core].amax(dim=others)
                    if others
                    else self._gone[core]
                )
                if bool(lost.any()):
                    result[axis] = torch.nonzero(~lost).flatten()
        return result

    def thin(self, tensor: Tensor, kept: Kept) -> Tensor:
        """Return a tensor with only the kept positions along each axis."""
        for axis, positions in kept.items():
            tensor = tensor.index_select(axis, positions.to(tensor.device))
        return tensor

    def shape(self, value: Identified) -> tuple[int, ...]:
        """The value's thinned shape."""
        kept = self.kept(value)
        return tuple(len(kept[d]) if d in kept else size for d, size in enumerate(value.shape))

    def touched(self, node: fx.Node) -> bool:
        """Whether the node's value or any of its arguments becomes thinner."""
        values = identified_in([self.values.get(n) for n in (node, *node.all_input_nodes)])
        return any(self.kept(v) for v in values)

    def number(self, item: Any) -> Any:
        """An integer argument's value in the thinned network."""
        if isinstance(item, fx.Node):
            return self.numbers[item] if item in self.numbers else self.values[item]
        return item

    def emit(self, node: fx.Node, builder: Builder) -> Any:
        """The node in the new graph."""
        name, value = operator_name(node), self.values.get(node)
        if not isinstance(value, (Identified, tuple)):
            self._count(node, name)
        if name == "getitem" and isinstance(parts := builder.value(node.args[0]), tuple):
            return parts[arguments(node)[1]]
        if not self.touched(node):
            return builder.copy(node, node.args, node.kwargs)
        rewrite = self.rewrites.get(name)
        if rewrite is not None:
            return rewrite(self, node, builder)
        made = builder.copy(node, node.args, node.kwargs)
        if isinstance(value, Identified) and not identified_in([self.values[n] for n in node.all_input_nodes]):
            return selected(builder, made, self.kept(value))  # a constant the network makes itself
        return made

    def _count(self, node: fx.Node, name: str) -> None:
        """Follow integers computed from thinned shapes."""
        source = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if name in ("sym_size", "size") and isinstance(source, Identified):
            self.numbers[node] = self.shape(source)[arguments(node)[1]]
        elif all(not isinstance(self.values.get(n), Identified) for n in node.all_input_nodes):
            self.numbers[node] = operator_of(node)(*fx.map_arg(node.args, self.number), **node.kwargs)


def selected(builder: Builder, made: fx.Node, kept: Kept) -> fx.Node:
    """Only the kept positions of a value."""
    for axis, positions in kept.items():
        made = select_along(builder, made, axis, positions)
    return made


def select_along(builder: Builder, source: fx.Node, axis: int, index: Tensor) -> fx.Node:
    """A slice where the positions are consecutive, else a gather."""
    start, length = int(index[0]) if len(index) else 0, len(index)
    if torch.equal(index, torch.arange(start, start + length)):
        return builder.graph.call_function(torch.ops.aten.slice.Tensor, (source, axis, start, start + length))
    return builder.graph.call_function(torch.ops.aten.index_select.default, (source, axis, builder.constant(index)))


def replaced(node: fx.Node, **changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The node's arguments with some replaced by name."""
    args, kwargs = list(node.args), dict(node.kwargs)
    for position, declared in enumerate(schema_of(node).arguments):
        if declared.name in changes:
            if position < len(args) and not declared.kwarg_only:
                args[position] = changes[declared.name]
            else:
                kwargs[declared.name] = changes[declared.name]
    return tuple(args), kwargs


def resized(adapter: Adapter, sizes: Sequence[Any], expected: Sequence[int]) -> list[Any]:
    """Sizes for the thinned shape; symbolic and inferred ones are left alone where they still hold."""
    result: list[Any] = []
    for old, new in zip(sizes, expected, strict=True):
        if isinstance(old, int) and old == -1 and -1 not in result:
            result.append(-1)
        elif isinstance(old, fx.Node):
            result.append(old if adapter.number(old) == new else -1)
        else:
            result.append(int(new))
    return result
