"""Rewriting a movement operator for thinner tensors, each rewrite proved on labelled elements.

The operator is right when moving the thinned labels gives the thinned moved labels. Its arguments are tried as they
are, then with thinned sizes, then as a plain selection along one axis; the first that passes is used.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.errors import UserError

from .adapting import Adapter, Builder, replaced, resized
from .propagation import Identified
from .propagation.rules import argument
from .tracing import describe, operator_name


class _Mover:
    """One movement node with its labels before and after."""

    def __init__(self, adapter: Adapter, node: fx.Node) -> None:
        self.adapter, self.node = adapter, node
        self.source: Identified = adapter.values[node.args[0]]
        labels = torch.arange(math.prod(self.source.shape)).view(self.source.shape) + 1
        self.thin_labels = adapter.thin(labels, adapter.kept(self.source))
        outputs = adapter.values[node]
        self.outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        moved = self._run(labels, node.args, node.kwargs, adapter.values.__getitem__)
        self.expected = [adapter.thin(m, adapter.kept(o)) for m, o in zip(moved, self.outputs, strict=True)]

    def _run(self, labels: Tensor, args: Any, kwargs: Any, number: Callable[[Any], Any]) -> list[Tensor]:
        def lookup(n: fx.Node) -> Any:
            v = number(n)
            return v.data if isinstance(v, Identified) and v.data is not None else v
        rest = fx.map_arg(tuple(args[1:]), lookup)
        made = self.node.target(labels, *rest, **fx.map_arg(kwargs, lookup))
        return [made] if isinstance(made, Tensor) else list(made)

    def holds(self, args: Any, kwargs: Any) -> bool:
        """Whether these arguments move the thinned labels to where they belong."""
        try:
            made = self._run(self.thin_labels, args, kwargs, self.adapter.number)
        except (RuntimeError, IndexError, ValueError):
            return False
        return len(made) == len(self.expected) and all(
            m.shape == e.shape and bool((m == e).all()) for m, e in zip(made, self.expected, strict=True))

    def candidates(self) -> Iterator[tuple[Any, Any]]:
        node, name = self.node, operator_name(self.node)
        yield node.args, node.kwargs
        names = [a.name for a in node.target._schema.arguments]
        for key in ("size", "shape", "sizes"):
            if key in names and isinstance(argument(node, node.args, node.kwargs, key), (list, tuple)):
                sizes = argument(node, node.args, node.kwargs, key)
                if len(sizes) == self.expected[0].dim():
                    yield replaced(node, **{key: resized(self.adapter, sizes, tuple(self.expected[0].shape))})
        if name == "slice":
            yield from self._slices()
        if name == "select":
            yield from self._selects()
        if name in ("pad", "constant_pad_nd"):
            yield self._padded()

    def _slices(self) -> Iterator[tuple[Any, Any]]:
        dim = argument(self.node, self.node.args, self.node.kwargs, "dim") % self.source.dim
        for start in range(self.thin_labels.shape[dim] - self.expected[0].shape[dim] + 1):
            yield replaced(self.node, start=start, end=start + self.expected[0].shape[dim], step=1)

    def _selects(self) -> Iterator[tuple[Any, Any]]:
        dim = argument(self.node, self.node.args, self.node.kwargs, "dim")
        for index in range(self.thin_labels.shape[dim]):
            yield replaced(self.node, index=index)

    def _padded(self) -> tuple[Any, Any]:
        widths = list(self.node.args[1])
        for k in range(len(widths) // 2):
            axis = self.source.dim - 1 - k
            kept = self.adapter.kept(self.outputs[0]).get(axis)
            if kept is not None:
                inside = self.source.shape[axis] + widths[2 * k]
                widths[2 * k], widths[2 * k + 1] = int((kept < widths[2 * k]).sum()), int((kept >= inside).sum())
        return (self.node.args[0], widths, *self.node.args[2:]), self.node.kwargs

    def selections(self) -> list[tuple[int, Tensor]]:
        """Per output, an axis and the positions of the thinned source that make it, where there are such."""
        return [found for e in self.expected if (found := _selection(self.thin_labels, e)) is not None]


def _selection(source: Tensor, target: Tensor) -> tuple[int, Tensor] | None:
    if source.dim() != target.dim() or source.numel() == 0 or target.numel() == 0:
        return None
    for axis in range(source.dim()):
        line = tuple(slice(None) if d == axis else 0 for d in range(source.dim()))
        have = {int(label): i for i, label in enumerate(source[line])}
        wanted = [int(label) for label in target[line]]
        if all(w in have for w in wanted):
            index = torch.tensor([have[w] for w in wanted])
            made = source.index_select(axis, index)
            if made.shape == target.shape and bool((made == target).all()):
                return axis, index
    return None


def rewrite_movement(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    mover = _Mover(adapter, node)
    for args, kwargs in mover.candidates():
        if mover.holds(args, kwargs):
            return builder.copy(node, args, kwargs)
    selections = mover.selections()
    if len(selections) != len(mover.expected):
        raise UserError(f"{describe(node)}: what is left after removing these channels cannot be expressed by it")
    parts = [_select(builder, builder.value(node.args[0]), axis, index) for axis, index in selections]
    return parts[0] if isinstance(adapter.values[node], Identified) else builder.graph.call_function(_pack, tuple(parts))


def _select(builder: Builder, source: fx.Node, axis: int, index: Tensor) -> fx.Node:
    """A slice where the positions are consecutive, else a gather."""
    start, length = int(index[0]), len(index)
    if index.tolist() == list(range(start, start + length)):
        return builder.graph.call_function(torch.ops.aten.slice.Tensor, (source, axis, start, start + length))
    return builder.graph.call_function(torch.ops.aten.index_select.default, (source, axis, builder.constant(index)))


def _pack(*parts: Any) -> tuple[Any, ...]:
    """Several values as one."""
    return parts
