"""Where every value becomes thinner, and the arguments that count channels rewritten accordingly."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from .channel_groups import Structure
from .propagation import Identified, varying
from .tracing import operator_name

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


Rewrite = Callable[["Adapter", fx.Node, Builder], fx.Node]


class Adapter:
    """Knows which positions of every value are removed and emits nodes that reckon with it."""

    def __init__(self, structure: Structure, removed: np.ndarray, rewrites: Mapping[str, Rewrite]) -> None:
        self.rewrites = rewrites
        self.values = structure.values
        self.removed = torch.from_numpy(removed)
        self.classes = torch.from_numpy(structure.classes)
        self.numbers: dict[fx.Node, Any] = {}

    def kept(self, value: Any) -> Kept:
        """Kept positions along each axis of a value that loses some."""
        result: Kept = {}
        for facet in value.facets if isinstance(value, Identified) else []:
            axes = varying(facet)
            core = facet[tuple(slice(None) if d in axes else 0 for d in range(facet.dim()))]
            gone = self.removed[self.classes[core]]
            for position, axis in enumerate(axes):
                others = [d for d in range(gone.dim()) if d != position]
                lost = gone.all(dim=tuple(others)) if others else gone
                if bool(lost.any()):
                    result[axis] = torch.nonzero(~lost).flatten()
        return result

    def thin(self, tensor: Tensor, kept: Kept) -> Tensor:
        for axis, positions in kept.items():
            tensor = tensor.index_select(axis, positions)
        return tensor

    def shape(self, value: Identified) -> tuple[int, ...]:
        """The value's thinned shape."""
        kept = self.kept(value)
        return tuple(len(kept[d]) if d in kept else size for d, size in enumerate(value.shape))

    def touched(self, node: fx.Node) -> bool:
        """Whether the node's value or any of its arguments becomes thinner."""
        values = [self.values.get(n) for n in (node, *node.all_input_nodes)]
        flat = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
        return any(self.kept(v) for v in flat)

    def number(self, item: Any) -> Any:
        """An integer argument's value in the thinned network."""
        if isinstance(item, fx.Node):
            return self.numbers[item] if item in self.numbers else self.values[item]
        return item

    def emit(self, node: fx.Node, builder: Builder) -> fx.Node:
        """The node in the new graph."""
        name = operator_name(node)
        if not isinstance(self.values.get(node), (Identified, tuple)):
            self._count(node, name)
        rewrite = self.rewrites.get(name)
        if rewrite is not None and self.touched(node):
            return rewrite(self, node, builder)
        return builder.copy(node, node.args, node.kwargs)

    def _count(self, node: fx.Node, name: str) -> None:
        """Follow integers computed from thinned shapes."""
        if name in ("sym_size", "size") and isinstance(source := self.values[node.args[0]], Identified):
            self.numbers[node] = self.shape(source)[node.args[1]]
        elif all(not isinstance(self.values.get(n), Identified) for n in node.all_input_nodes):
            self.numbers[node] = node.target(*fx.map_arg(node.args, self.number), **node.kwargs)


def replaced(node: fx.Node, **changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The node's arguments with some replaced by name."""
    args, kwargs = list(node.args), dict(node.kwargs)
    for position, declared in enumerate(node.target._schema.arguments):
        if declared.name in changes:
            if position < len(args) and not declared.kwarg_only:
                args[position] = changes[declared.name]
            else:
                kwargs[declared.name] = changes[declared.name]
    return tuple(args), kwargs


def resized(adapter: Adapter, sizes: Any, expected: tuple[int, ...]) -> list[Any]:
    """Sizes for the thinned shape, symbolic and inferred ones left alone where they still hold."""
    result = []
    for old, new in zip(sizes, expected, strict=True):
        if isinstance(old, int) and old == -1 and -1 not in result:
            result.append(-1)
        elif isinstance(old, fx.Node):
            result.append(old if adapter.number(old) == new else -1)
        else:
            result.append(int(new))
    return result
