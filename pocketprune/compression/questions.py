"""Questions on channel groups, and where the evidence on them comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from pocketprune.compression.views import GroupViews
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure

Loss = Callable[[Any, Tensor], Tensor]
"""(the network's output, labels) -> a scalar."""

PARTS = {
    "l1": "filters",
    "l2": "filters",
    "geometric_median": "filters",
    "magnitude": "consumers",
    "random": "nothing",
    "bn_scale": "norms",
    "apoz": "rectifiers",
    "mean_activation": "activations",
    "taylor": "gradients",
    "gradient": "gradients",
    "fisher": "gradients",
    "lasso": "moments",
    "obs": "moments",
}
"""Criterion -> the part of the evidence that it reads."""


@dataclass(frozen=True)
class Question:
    """What is asked about one group.

    Attributes:
        views: of the group.
        criterion: a key of ``PARTS``.
        side: "filters" or "channels": the weights that write the group, or those that read it.
        aggregate: how several members' scores become one.
        unit_norm: whether each weight is divided by its L2 norm, so that scores compare between groups.
        seed: of random scores.
    """

    views: GroupViews
    criterion: str
    side: str = "filters"
    aggregate: str = "sum"
    unit_norm: bool = False
    seed: int = 0

    @property
    def part(self) -> str:
        """The part of the evidence that the criterion reads."""
        return PARTS[self.criterion]


@dataclass(frozen=True)
class Source:
    """Where evidence comes from.

    Attributes:
        structure: the analysed network; its live tensors are read.
        batches: inputs, or pairs of inputs and labels; None where no criterion needs them.
        loss: what gradients are of.
    """

    structure: Structure
    batches: Iterable[Any] | None
    loss: Loss

    def each(self) -> Iterable[tuple[ExampleInputs, Tensor | None]]:
        """Yield inputs and labels of each batch, on the network's device."""
        for batch in self.batches or ():
            is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
            inputs, labels = batch if is_pair else (batch, None)
            yield pytree.tree_map_only(Tensor, lambda t: t.to(self.structure.traced.device), (inputs, labels))
