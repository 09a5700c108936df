"""Sums over channels of constants: a layer that reads constants, or a statistic of a weight (its norm, say)?

A statistic changes when some of a weight's rows or columns go, and with it all that is left of the weight. A layer
that reads constants (a learned token, a state of zeros, what a small network writes) reads them like any others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from pocketprune.structure.propagation.rules import ConstantSum, State, identified_in
from pocketprune.structure.propagation.values import Identified, core


def mix_statistics_of_weights(state: State, values: dict[fx.Node, Any]) -> None:
    """Mark the channels that statistics of weights are taken over as mixed; nothing reads them there."""
    if not state.sums:
        return
    classes = state.identities.classes()
    statistics = [s for s in state.sums if _is_statistic(state, values, classes, s)]
    for statistic in statistics:
        state.mix(statistic.node, statistic.ids)
    nodes = {statistic.node for statistic in statistics}
    state.contractions[:] = [c for c in state.contractions if c.kind != "product" or c.node not in nodes]


def _is_statistic(state: State, values: dict[fx.Node, Any], classes: np.ndarray, found: ConstantSum) -> bool:
    """Whether a sum is over a weight's own channels, or goes into a weight that has them."""
    channels = set(classes[found.ids.numpy()].tolist())
    layers = {contraction.node for contraction in state.contractions if contraction.kind != "product"}
    summed = set(_behind(found.sources, values, layers))
    for weight in state.weights:
        own = [n for n in _behind([weight], values, layers) if n in state.tensor_of_node]
        if any(n in summed and channels & _classes_of(values[n], classes) for n in own):
            return True
        if found.node in _behind([weight], values) and channels & _classes_of(values[weight], classes):
            return True
    return False


def _behind(nodes: Iterable[fx.Node], values: dict[fx.Node, Any], stop: Iterable[fx.Node] = ()) -> Iterator[fx.Node]:
    """The constants that some nodes are computed from, themselves included; not through the nodes to stop at."""
    stop, waiting, seen = set(stop), list(nodes), set()
    while waiting:
        node = waiting.pop()
        value = values.get(node)
        if node in seen or not all(v.constant for v in identified_in([value])):
            continue
        seen.add(node)
        yield node
        waiting += [] if node in stop else node.all_input_nodes


def _classes_of(value: Identified, classes: np.ndarray) -> set[int]:
    ids = [core(facet) for facet in value.facets]
    return set(classes[torch.cat(ids).numpy()].tolist()) if ids else set()
