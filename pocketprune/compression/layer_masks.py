"""From masks on single layers to kept channels: a channel goes where nothing that reads it can see it any more.

A mask on a filter ends its channel there, whatever the batch norm after it adds; so does one on a batch norm, or on a
depthwise layer. Where ways meet, as in a residual sum, a channel lives as long as it does on one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, fx

from pocketprune.compression.views import BATCH_NORMS, View, views_of
from pocketprune.graph.nodes import operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.propagation.rules import identified_in

PRODUCTS = ("mul", "mul_")
"""Operators whose result is zero where one of their operands is."""

SHIFTED = frozenset(("sigmoid", "hardsigmoid", "softplus", "log_sigmoid", "exp", "cos", "log", "softmax", "_softmax"))
"""Operators that make another constant of zero."""

SUMS = ("add", "sub", "rsub", "add_", "sub_")
"""Operators that do so where one operand is a number."""


def kept_channels_of(structure: Structure, masked: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return for each prunable group the channels that masks on its layers leave; at least one.

    Args:
        structure: the analysed network.
        masked: parameter name -> where it is masked, a boolean of its shape. Those of biases tell nothing.
    """
    flow = _Flow(structure, masked)
    kept = {}
    for group in structure.groups:
        if group.prunable:
            gone = flow.unseen(group)
            kept[group.name] = [channel for channel in range(group.size) if not gone[channel]] or [0]
    return kept


class _Flow:
    """Which channels are constant in each value of the graph because of masks, and which of them are zero."""

    def __init__(self, structure: Structure, masked: Mapping[str, Tensor]) -> None:
        self._structure, self._masked = structure, masked
        self._contractions = {layer.node: layer for layer in structure.contractions}
        self._ends: dict[str, set[int]] = {}
        for group in structure.groups:
            self._note_ends(group)
        self._constant: dict[fx.Node, set[int]] = {}
        self._zero: dict[fx.Node, set[int]] = {}
        for node in structure.traced.call_nodes():
            self._constant[node], self._zero[node] = self._after(node)

    def unseen(self, group: ChannelGroup) -> np.ndarray:
        """Return which channels of a group no reader sees, a boolean (c,)."""
        views = {view.tensor: view for view in views_of(self._structure, group).columns}
        seen = np.zeros(group.size, dtype=bool)
        for reader in (*self._structure.contractions, *self._structure.products):
            if reader.carrier or reader.in_ids is None:
                continue
            read = np.isin(group.classes, self._structure.class_of(reader.in_ids))
            if read.any():
                constant = np.isin(group.classes, list(self._constant.get(reader.source, ())))
                seen |= read & ~constant & ~self._columns_masked(views.get(reader.weight or ""), group.size)
        return ~seen

    def _note_ends(self, group: ChannelGroup) -> None:
        """Note the classes that a masked filter or scale ends, by tensor."""
        views = views_of(self._structure, group)
        for view in (*views.filters, *views.norms):
            here = np.array(group.classes)[self._rows_masked(view)]
            self._ends.setdefault(view.tensor, set()).update(here.tolist())

    def _rows_masked(self, view: View) -> np.ndarray:
        if view.tensor not in self._masked:
            return np.zeros(len(view.indices), dtype=bool)
        rows: np.ndarray = view.rows(self._masked[view.tensor]).all(1).cpu().numpy()
        return rows

    def _columns_masked(self, view: View | None, channels: int) -> np.ndarray:
        return np.zeros(channels, dtype=bool) if view is None else self._rows_masked(view)

    def _after(self, node: fx.Node) -> tuple[set[int], set[int]]:
        """Return the classes that are constant, and those that are zero, in what a node puts out."""
        name, layer = operator_name(node), self._contractions.get(node)
        made = [source for source in node.all_input_nodes if source in self._constant]
        if layer is not None or name in BATCH_NORMS:
            ended = self._ends.get(self._scale(node) if layer is None else layer.weight or "", set())
            passed = made[:1] if layer is None or layer.carrier else []
            return ended.union(*(self._constant[n] for n in passed)), ended.union(*(self._zero[n] for n in passed))
        constant, zero = (self._in_all(made, found) for found in (self._constant, self._zero))
        if name in PRODUCTS:
            zero = set().union(*(self._zero[n] for n in made))
        has_number = any(isinstance(argument, (int, float)) for argument in node.args)
        if name in SHIFTED or (name in SUMS and has_number):
            zero = set()
        return constant | zero, zero

    def _in_all(self, nodes: Sequence[fx.Node], found: Mapping[fx.Node, set[int]]) -> set[int]:
        """Return the classes that are found in each of the values that have them."""
        lost = set().union(*(self._classes(n) - found[n] for n in nodes))
        return set().union(*(found[n] for n in nodes)) - lost

    def _classes(self, node: fx.Node) -> set[int]:
        """Return the classes that a value has."""
        classes: set[int] = set()
        for value in identified_in(self._structure.values.get(node)):
            for facet in value.facets:
                core = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
                classes |= set(np.unique(self._structure.classes[core.numpy()]).tolist())
        return classes

    def _scale(self, node: fx.Node) -> str:
        """Return the name of a batch norm's scale; "" where it has none."""
        scale = node.args[1] if len(node.args) > 1 else None
        return self._structure.traced.tensor_names.get(scale, "") if isinstance(scale, fx.Node) else ""
