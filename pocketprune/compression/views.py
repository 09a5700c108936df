"""Views: where the channels of one group lie in the tensors that write, scale and read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from pocketprune.graph.branches import TRACKED_NORMS
from pocketprune.graph.nodes import operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.propagation import Contraction

OUTPUT_AXES = {"conv": 0, "conv_transpose": 1, "linear": 0, "embedding": 1}
INPUT_AXES = {"conv": 1, "conv_transpose": 0, "linear": 1}
"""Kind of layer -> the axis of its weight along which its output or input channels lie."""

BATCH_NORMS = TRACKED_NORMS | {"native_batch_norm"}


@dataclass(frozen=True)
class View:
    """The places of a group's channels along one axis of a tensor.

    Attributes:
        tensor: name of the parameter or buffer.
        axis: the axis.
        indices: (c, k) indices of each of the c channels.
    """

    tensor: str
    axis: int
    indices: Tensor

    def rows(self, tensor: Tensor) -> Tensor:
        """Return what the tensor holds of each channel, (c, values)."""
        channels, each = self.indices.shape
        along = tensor.movedim(self.axis, 0)
        if not self._is_whole(along.shape[0]):
            along = along.index_select(0, self.indices.flatten().to(tensor.device))
        return along.reshape(channels, each * along[0].numel())

    def _is_whole(self, size: int) -> bool:
        flat = self.indices.flatten()
        return len(flat) == size and bool((flat == torch.arange(size)).all())


@dataclass(frozen=True)
class GroupViews:
    """All views of one channel group.

    Attributes:
        group: the channel group.
        filters: in the weights that write it, depthwise ones included, in forward order.
        columns: in the weights that read it, in forward order.
        norms: in the scales of batch norms on it, in forward order.
        everything: in all tensors that go with it.
        computed: names of the weights that are computed from others in the forward (weight norm and its kin).
    """

    group: ChannelGroup
    filters: tuple[View, ...]
    columns: tuple[View, ...]
    norms: tuple[View, ...]
    everything: tuple[View, ...]
    computed: frozenset[str]

    def side(self, name: str) -> tuple[View, ...]:
        """Return the filters or the columns, by their name in a rule."""
        return self.filters if name == "filters" else self.columns

    @property
    def hidden(self) -> tuple[View, ...]:
        """Where zeros make the network compute what it does without the channels.

        These are the columns that read them. What is read without a weight has no columns: there everything is zero.
        """
        if self.group.products:
            return self.erased
        return self.columns

    @property
    def erased(self) -> tuple[View, ...]:
        """Where zeros leave nothing of the channels; a computed weight keeps its numbers, as it may divide by them."""
        columns = {view.tensor for view in self.columns}
        return tuple(v for v in self.everything if v.tensor not in self.computed or v.tensor in columns)


def views_of(structure: Structure, group: ChannelGroup) -> GroupViews:
    """Return the views of one group of an analysed network."""
    places = group.slices(range(group.size))
    views = {
        key: View(*key, torch.tensor(indices).reshape(group.size, -1).sort(1).values) for key, indices in places.items()
    }
    classes = np.array(group.classes)
    writers = [c for c in structure.contractions if _touches(structure, c.out_ids, classes)]
    readers = [c for c in structure.contractions if _touches(structure, c.in_ids, classes) and not c.carrier]
    scales = dict.fromkeys(_batch_norm_scales(structure))
    return GroupViews(
        group=group,
        filters=_unique(views.get((w.weight or "", OUTPUT_AXES[w.kind])) for w in writers if w.kind in OUTPUT_AXES),
        columns=_unique(view for reader in readers for view in _read(views, reader)),
        norms=_unique(views.get((name, 0)) for name in scales),
        everything=tuple(views.values()),
        computed=frozenset(c.weight for c in structure.contractions if c.weight is not None and not c.plain),
    )


def _touches(structure: Structure, ids: Tensor | None, classes: np.ndarray) -> bool:
    return ids is not None and bool(np.isin(structure.class_of(ids), classes).any())


def _read(views: dict[tuple[str, int], View], reader: Contraction) -> Iterable[View]:
    """Yield where a layer's weight reads the group; all of it where the axis is not known."""
    axis = INPUT_AXES.get(reader.kind) if reader.plain else None
    return (view for (tensor, a), view in views.items() if tensor == reader.weight and axis in (a, None))


def _unique(views: Iterable[View | None]) -> tuple[View, ...]:
    found = {(view.tensor, view.axis): view for view in views if view is not None}
    return tuple(found.values())


def _batch_norm_scales(structure: Structure) -> Iterable[str]:
    """Yield the names of the batch norms' scales, in forward order."""
    for node in structure.traced.call_nodes():
        if operator_name(node) in BATCH_NORMS:
            scale = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
            if isinstance(scale, fx.Node) and scale in structure.traced.tensor_names:
                yield structure.traced.tensor_names[scale]
