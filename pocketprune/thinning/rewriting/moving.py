"""Rewriting a movement operator for thinner tensors, each rewrite proved on labelled elements.

The operator is right when moving the thinned labels gives the thinned moved labels. Its arguments are tried as they
are, then with thinned sizes, then as a plain selection along one axis; the first that passes is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pocketprune.common.errors import UserError
from pocketprune.graph.nodes import arguments
from pocketprune.graph.tracing import describe, operator_name
from pocketprune.structure.propagation import Identified
from pocketprune.structure.propagation.movement import call_movement
from pocketprune.structure.propagation.rules import argument, field_like
from pocketprune.thinning.rewriting.adapting import Adapter, Builder, Kept, replaced, resized, select_along

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""An operator and its arguments, in terms of the old graph's nodes."""


class _Mover:
    """One movement node with its labels before and after."""

    def __init__(self, adapter: Adapter, node: fx.Node) -> None:
        self.adapter, self.node, self.name = adapter, node, operator_name(node)
        self.source: Identified = adapter.values[arguments(node)[0]]
        labels = torch.arange(1, math.prod(self.source.shape) + 1).view(self.source.shape)
        self.thin_labels = adapter.thin(labels, adapter.kept(self.source))
        outputs = adapter.values[node]
        self.outputs: list[Identified] = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        moved = self._run(labels, (node.target, node.args, node.kwargs), adapter.values.__getitem__, thin=False)
        self.expected = [adapter.thin(m, adapter.kept(o)) for m, o in zip(moved, self.outputs, strict=True)]

    def _run(self, labels: Tensor, call: Call, number: Callable[[Any], Any], *, thin: bool) -> list[Tensor]:
        """The labels moved by a call; other tensors among its arguments are known indices or only lend a shape."""

        def lookup(node: fx.Node) -> Any:
            value = number(node)
            if not isinstance(value, Identified):
                return value
            return (
                value.data if value.data is not None else field_like(self.adapter.shape(value) if thin else value.shape)
            )

        target, args, kwargs = call
        rest, options = fx.map_arg(tuple(args[1:]), lookup), fx.map_arg(kwargs, lookup)
        made = (
            call_movement(self.node, labels, rest, options)
            if target is self.node.target
            else target(labels, *rest, **options)
        )
        return [made] if isinstance(made, Tensor) else list(made)

    def holds(self, call: Call) -> bool:
        """Whether these arguments move the thinned labels to where they belong."""
        try:
            made = self._run(self.thin_labels, call, self.adapter.number, thin=True)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return False
        return len(made) == len(self.expected) and all(
            m.shape == e.shape and bool((m == e).all()) for m, e in zip(made, self.expected, strict=True)
        )

    def calls(self) -> Iterator[Call]:
        """Ways to say the same of thinner tensors, the plainest first."""
        node = self.node
        yield node.target, node.args, node.kwargs
        for args, kwargs in CANDIDATES.get(self.name, _none)(self):
            yield node.target, args, kwargs
        if self.name in RESHAPES:
            yield torch.ops.aten.reshape.default, (node.args[0], self.symbolic_shape()), {}

    def symbolic_shape(self) -> list[Any]:
        """The thinned output shape, its dynamic axes taken from the source."""
        result: list[Any] = []
        for size, symbol in zip(self.expected[0].shape, self.node.meta["val"].shape, strict=True):
            dynamic = not isinstance(symbol, int)
            result.append(-1 if dynamic and -1 not in result else int(size))
        return result

    def selections(self) -> list[tuple[int, Tensor]] | None:
        """Per output, an axis and the positions of the thinned source that make it, where there are such."""
        dynamic = {d for d, size in enumerate(arguments(self.node)[0].meta["val"].shape) if not isinstance(size, int)}
        axes = sorted(set(range(self.source.dim)) - dynamic, key=lambda d: d not in self.adapter.kept(self.source))
        found = [_selection(self.thin_labels, e, axes) for e in self.expected]
        selections = [f for f in found if f is not None]
        return selections if len(selections) == len(found) else None


def _none(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    return iter(())


def _sized(key: str) -> Callable[[_Mover], Iterator[tuple[Any, Any]]]:
    """Candidates of an operator that lists its output's sizes."""

    def candidates(mover: _Mover) -> Iterator[tuple[Any, Any]]:
        sizes = argument(mover.node, mover.node.args, mover.node.kwargs, key)
        yield replaced(mover.node, **{key: resized(mover.adapter, sizes, mover.expected[0].shape)})

    return candidates


def _unflattened(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    sizes = argument(mover.node, mover.node.args, mover.node.kwargs, "sizes")
    dim = argument(mover.node, mover.node.args, mover.node.kwargs, "dim") % mover.source.dim
    yield replaced(mover.node, sizes=resized(mover.adapter, sizes, mover.expected[0].shape[dim : dim + len(sizes)]))


def _dim(mover: _Mover, rank: int) -> int:
    dim: int = argument(mover.node, mover.node.args, mover.node.kwargs, "dim") % rank
    return dim


def _before(kept: Kept, dim: int, place: int) -> int:
    """How many kept positions lie before a place."""
    return int((kept[dim] < place).sum()) if dim in kept else place


def _sliced(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    dim, kept = _dim(mover, mover.source.dim), mover.adapter.kept(mover.source)
    start, end, _ = slice(
        *(argument(mover.node, mover.node.args, mover.node.kwargs, n) for n in ("start", "end"))
    ).indices(mover.source.shape[dim])
    yield replaced(mover.node, start=_before(kept, dim, start), end=_before(kept, dim, end), step=1)


def _picked(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    dim, kept = _dim(mover, mover.source.dim), mover.adapter.kept(mover.source)
    index = argument(mover.node, mover.node.args, mover.node.kwargs, "index") % mover.source.shape[dim]
    yield replaced(mover.node, index=_before(kept, dim, index))


def _split_in(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    dim = _dim(mover, mover.source.dim)
    sizes = [e.shape[dim] for e in mover.expected]
    yield replaced(mover.node, split_sizes=sizes)
    yield replaced(mover.node, split_size=sizes if operator_name(mover.node) == "split_with_sizes" else max(sizes))


def _padded(mover: _Mover) -> Iterator[tuple[Any, Any]]:
    node, widths = mover.node, list(arguments(mover.node)[1])
    for k in range(len(widths) // 2):
        axis = mover.source.dim - 1 - k
        kept = mover.adapter.kept(mover.outputs[0]).get(axis)
        if kept is not None:
            inside = mover.source.shape[axis] + widths[2 * k]
            widths[2 * k], widths[2 * k + 1] = int((kept < widths[2 * k]).sum()), int((kept >= inside).sum())
    yield (node.args[0], widths, *node.args[2:]), node.kwargs


CANDIDATES: dict[str, Callable[[_Mover], Iterator[tuple[Any, Any]]]] = {
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "expand", "broadcast_to"), _sized("size")),
    "reshape": _sized("shape"),
    "unflatten": _unflattened,
    "slice": _sliced,
    "select": _picked,
    **dict.fromkeys(("split", "split_with_sizes"), _split_in),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
}
"""Operator name -> its arguments for thinner tensors."""

RESHAPES = frozenset(
    ("view", "_unsafe_view", "_reshape_alias", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel")
)


def _selection(source: Tensor, target: Tensor, axes: Sequence[int]) -> tuple[int, Tensor] | None:
    """The first of some axes along which the source has positions that make the target, and those."""
    if source.dim() == target.dim() and target.numel() == 0:
        return target.shape.index(0), torch.zeros(0, dtype=torch.int64)
    if source.dim() != target.dim() or source.numel() == 0:
        return None
    for axis in axes:
        if any(source.shape[d] != target.shape[d] for d in range(source.dim()) if d != axis):
            continue
        line = tuple(slice(None) if d == axis else 0 for d in range(source.dim()))
        have, order = source[line].sort()
        place = torch.searchsorted(have, target[line].contiguous()).clamp_max(len(have) - 1)
        index = order[place]
        if bool((source.index_select(axis, index) == target).all()):
            return axis, index
    return None


def rewrite_movement(adapter: Adapter, node: fx.Node, builder: Builder) -> Any:
    """The node, or what takes its place, in the new graph."""
    mover = _Mover(adapter, node)
    for target, args, kwargs in mover.calls():
        if mover.holds((target, args, kwargs)):
            made = builder.copy(node, args, kwargs)
            made.target = target
            return made
    selections = mover.selections()
    if selections is None:
        raise UserError(f"{describe(node)}: what is left after removing these channels cannot be expressed by it")
    parts = [select_along(builder, builder.value(node.args[0]), axis, index) for axis, index in selections]
    return parts[0] if isinstance(adapter.values[node], Identified) else tuple(parts)
