"""From masks on single layers to kept channels: a channel goes where nothing that reads it can see it any more.

A mask on a filter ends its channel there, whatever the batch norm after it adds; so does one on a batch norm, or on a
depthwise layer. Where ways meet, as in a residual sum, a channel lives as long as it does on one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, fx

from pocketprune.compression.views import BATCH_NORMS, View, views_of
from pocketprune.graph.nodes import operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.propagation.rules import identified_in

JOINED_BY_ZERO = ("mul", "mul_")
"""Operators whose result is zero where one of their operands is; of others all must be."""


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
    """Which channels are masked in each value of the graph."""

    def __init__(self, structure: Structure, masked: Mapping[str, Tensor]) -> None:
        self._structure, self._masked = structure, masked
        self._contractions = {layer.node: layer for layer in structure.contractions}
        self._ends: dict[str, np.ndarray] = {}
        for group in structure.groups:
            self._note_ends(group)
        self._dead: dict[fx.Node, set[int]] = {}
        for node in structure.traced.call_nodes():
            self._dead[node] = self._after(node)

    def unseen(self, group: ChannelGroup) -> np.ndarray:
        """Return which channels of a group no reader sees, a boolean (c,)."""
        views = {view.tensor: view for view in views_of(self._structure, group).columns}
        seen = np.zeros(group.size, dtype=bool)
        for reader in (*self._structure.contractions, *self._structure.products):
            if reader.carrier or reader.in_ids is None:
                continue
            read = np.isin(group.classes, self._structure.class_of(reader.in_ids))
            if read.any():
                dead = np.isin(group.classes, list(self._dead.get(reader.source, set())))
                seen |= read & ~dead & ~self._column_masked(views.get(reader.weight or ""), group.size)
        return ~seen

    def _note_ends(self, group: ChannelGroup) -> None:
        """Note the classes that a masked filter or scale ends, by tensor."""
        views = views_of(self._structure, group)
        for view in (*views.filters, *views.norms):
            here = np.array(group.classes)[self._rows_masked(view)]
            self._ends[view.tensor] = np.append(self._ends.get(view.tensor, np.array([], dtype=int)), here)

    def _rows_masked(self, view: View) -> np.ndarray:
        if view.tensor not in self._masked:
            return np.zeros(len(view.indices), dtype=bool)
        rows: np.ndarray = view.rows(self._masked[view.tensor]).all(1).cpu().numpy()
        return rows

    def _column_masked(self, view: View | None, channels: int) -> np.ndarray:
        return np.zeros(channels, dtype=bool) if view is None else self._rows_masked(view)

    def _after(self, node: fx.Node) -> set[int]:
        """Return the classes that are masked in what a node puts out."""
        layer = self._contractions.get(node)
        if layer is not None:
            through = self._dead.get(node.all_input_nodes[0], set()) if layer.carrier else set()
            return through | set(self._ends.get(layer.weight or "", ()))
        made = [n for n in node.all_input_nodes if n in self._dead]
        if operator_name(node) in BATCH_NORMS:
            scale = node.args[1] if len(node.args) > 1 else None
            name = self._structure.traced.tensor_names.get(scale, "") if isinstance(scale, fx.Node) else ""
            return self._dead.get(node.all_input_nodes[0], set()) | set(self._ends.get(name, ()))
        dead = set().union(*(self._dead[n] for n in made))
        if operator_name(node) in JOINED_BY_ZERO:
            return dead
        return dead - set().union(*(self._alive(n) for n in made))

    def _alive(self, node: fx.Node) -> set[int]:
        """Return the classes that a value has and that are not masked in it."""
        found: set[int] = set()
        for value in identified_in(self._structure.values.get(node)):
            for facet in value.facets:
                core = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
                found |= set(np.unique(self._structure.classes[core.numpy()]).tolist())
        return found - self._dead[node]
