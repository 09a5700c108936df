"""Milliseconds as a cost: those of a network without some channels of its groups, from times measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.common.errors import UserError
from pocketprune.compression.costs import GroupCosts
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.removal import remove_channels
from pocketprune.training.distributed import is_main


class MeasuredLatency:
    """The milliseconds of a batch as a function of the kept channels by group name, for `compress(..., cost=...)`.

    Layers are timed one by one at a few widths, with the batch norm and the activation after them. Their sum is made
    right for the whole network and for one of half the width. Of several processes the first one measures.

    Args:
        net: the network, on the device that counts.
        example_inputs: one tensor.
        batch: images in a batch.
        path: a table of times that is read where it exists.
        attention: as in the policy, as is `allow_inexact`.
        allow_inexact: see there.

    Raises:
        UserError: the network takes other inputs, or the file is no table of times.
    """

    def __init__(
        self,
        net: nn.Module,
        example_inputs: ExampleInputs,
        *,
        batch: int = 1,
        path: Path | None = None,
        attention: str = "heads",
        allow_inexact: bool = False,
    ) -> None:
        if not isinstance(example_inputs, Tensor):
            raise UserError("a network with other inputs than one tensor cannot be timed", argument="example_inputs")
        structure = analyse(net, example_inputs, attention=attention, allow_inexact=allow_inexact)
        check_groups(structure, structure.traced.example)
        groups = [group for group in structure.groups if group.prunable]
        self._costs = GroupCosts(structure, groups)
        known = path if is_main() and path is not None and path.exists() else None
        self._latency = LatencyCost(known, batch=batch, device=structure.traced.device, together=True)
        self._latency.table.path = None  # nothing is written before `save`
        halves = {group.name: max(1, group.size // 2) for group in groups}
        self._prepare(structure, example_inputs, halves)

    def __call__(self, kept: Mapping[str, int]) -> float:
        """Return the milliseconds of the network with these counts; a group that is not named keeps all channels."""
        return self._latency(self._costs.counts(kept))

    def save(self, path: Path) -> None:
        """Write the measured times, so that a later run on this machine chooses alike; the first process does it."""
        if is_main():
            self._latency.table.write(path)

    def _prepare(self, structure: Structure, example: Tensor, halves: Mapping[str, int]) -> None:
        kept = {name: range(count) for name, count in halves.items()}

        def halved() -> nn.Module:
            return remove_channels(
                structure.traced.net,
                example,
                kept,
                attention=structure.attention,
                allow_inexact=structure.allow_inexact,
                check=False,
            )

        self._latency.prepare(structure, self._costs.model, self._costs.counts(halves), halved)
