"""The counts that a search chooses: one for each layer, or for each set of layers with a shared input.

A choice has the units that it decides on (`decisions`, which the cost model reads), the layers whose weights depend on
it (`consumers`), and the entries of the ratio list that express it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, fx

from pocketprune.channel_pruning.affordable import affordable, is_affordable
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.geometry import geometry_of
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.graph.tracing import node_shape, operator_name
from pocketprune.numerics.ratios import kept_count, unit_count
from pocketprune.search.interface import Values, Variable
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.cost_model import Decision, decision_of, whole_input
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer, is_reused, layers_of, read_groups


@dataclass(frozen=True)
class Choice:
    """One searched count.

    Attributes:
        layer: the variable that a search sees.
        entries: the layers of the ratio list that it stands for.
        decisions: what is removed: one for a layer's own input, or one for every channel group of a coupled input.
        groups: the coupled channel groups, one for each decision; empty for a layer's own input.
        consumers: the layers to refit.
        multiple: a number of which kept counts are multiples.
    """

    layer: Variable
    entries: tuple[PrunableLayer, ...]
    decisions: tuple[Decision, ...] = ()
    groups: tuple[ChannelGroup, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    multiple: int = 1
    _readers: tuple[tuple[int, ...], ...] = field(default=(), repr=False)  # per group, entries that read it

    def entry_counts(self, count: int) -> Values:
        """Return the kept count of every entry of the ratio list."""
        if not self.groups:
            return (count,)
        ratio = count / self.layer.full
        return tuple(kept_count(ratio, entry.channels, self.multiple) for entry in self.entries)

    def units(self, count: int) -> Values:
        """Return the number of units of each decision that stay, as `prune_channels` counts them."""
        if not self.groups:
            return tuple(unit_count(count, self.layer.full, d.size) for d in self.decisions)
        shares = [kept / e.channels for kept, e in zip(self.entry_counts(count), self.entries, strict=True)]
        return tuple(
            kept_count(max(shares[reader] for reader in readers), group.size)
            for group, readers in zip(self.groups, self._readers, strict=True)
        )


Metric = Mapping[fx.Node, Tensor]


def choices_of(structure: Structure, options: PruningOptions, metric: Metric | None = None) -> list[Choice]:
    """Return the choices of an analysed network in forward order, with fixed layers."""
    multiple, metric = options.channel_multiple, metric or {}
    listed = affordable(layers_of(structure, options.shared_input, options.layers), options.moments_gb)
    coupled = {index: entries for entries in _coupled(structure, listed) for index in [entries[0].index]}
    choices = []
    for entry in listed:
        if entry.way == "couple" and entry.index in coupled:
            choices.append(_joint_choice(structure, coupled[entry.index], options, metric))
        elif entry.way in ("private", "sample"):
            choices.append(_own_choice(structure, entry, multiple, metric))
        elif entry.way == "fixed":
            choices.append(Choice(_variable(entry, (entry.channels,), entry.reason), (entry,)))
    return choices


def _own_choice(structure: Structure, entry: PrunableLayer, multiple: int, metric: Metric) -> Choice:
    decision = decision_of(structure, entry)
    counts = _allowed(lambda count: unit_count(count, entry.channels, decision.size), entry.channels, multiple)
    layer = _variable(entry, counts, "no smaller multiple of channels")
    return Choice(
        layer,
        (entry,),
        (decision,),
        (),
        (Consumer(structure.traced, decision, metric.get(entry.layer.node)),),
        multiple,
    )


def _allowed(units: Callable[[int], int], channels: int, multiple: int) -> Values:
    """Return the multiples, up to `channels`, that keep different numbers of units, in increasing order."""
    counts = [kept_count(ratio / channels, channels, multiple) for ratio in range(1, channels + 1)]
    by_units = {units(count): count for count in counts}
    return tuple(sorted(by_units.values()))


def _joint_choice(
    structure: Structure, entries: Sequence[PrunableLayer], options: PruningOptions, metric: Metric
) -> Choice:
    """Return the choice of layers that read, directly or through one another, the same channel groups."""
    names = {g.name for entry in entries for g in read_groups(structure, entry.layer) if g.prunable}
    groups = tuple(g for g in structure.groups if g.name in names)
    widest = max(entries, key=lambda entry: entry.channels)
    readers = tuple(
        tuple(i for i, e in enumerate(entries) if g.name in {r.name for r in read_groups(structure, e.layer)})
        for g in groups
    )
    decisions = tuple(Decision(widest, np.arange(g.size)[:, None], np.array(g.classes)[:, None]) for g in groups)
    consumers = tuple(
        Consumer(structure.traced, whole_input(reader), metric.get(reader.layer.node))
        for reader in layers_of(structure, "couple", "all")
        if reader.layer.in_ids is not None
        and not is_reused(structure, reader.layer)
        and is_affordable(reader, options.moments_gb)
        and names & {g.name for g in read_groups(structure, reader.layer)}
    )
    multiple = options.channel_multiple
    allowed = _allowed(lambda count: count, widest.channels, multiple)
    layer = _variable(widest, allowed, "no smaller multiple of channels", macs=sum(e.macs for e in entries))
    return Choice(layer, tuple(entries), decisions, groups, consumers, multiple, readers)


def _coupled(structure: Structure, listed: Sequence[PrunableLayer]) -> list[list[PrunableLayer]]:
    """Return the sets of coupled layers. Layers that share a channel group, also through others, are in one set."""
    found: list[tuple[set[str], list[PrunableLayer]]] = []
    for entry in listed:
        if entry.way == "couple":
            names, entries = {g.name for g in read_groups(structure, entry.layer) if g.prunable}, [entry]
            for others in [part for part in found if part[0] & names]:
                found.remove(others)
                names, entries = names | others[0], others[1] + entries
            found.append((names, sorted(entries, key=lambda e: e.index)))
    return [entries for _, entries in found]


def _variable(entry: PrunableLayer, allowed: Values, fixed: str, macs: int | None = None) -> Variable:
    node = entry.layer.node
    linear = operator_name(node) == "linear"
    height, width = (1, 1, *(() if linear else node_shape(node)[2:]))[-2:]
    stride = 1 if linear else max(geometry_of(node).stride)
    kernel, macs = max(entry.kernel, default=1), entry.macs if macs is None else macs
    return Variable(
        entry.name,
        entry.channels,
        allowed,
        fixed_because=fixed if len(allowed) == 1 else "",
        features=(entry.out_channels, entry.channels, height, width, stride, kernel, macs),
    )
