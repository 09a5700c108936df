"""The analysis that a pruning and a search of its ratios share: both must see the same groups."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.common.errors import UserError
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.batches import at_batch, refuse_frozen
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.ignoring import without_ignored
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.holding import check_removal


def analysed(net: nn.Module | Structure, batch: ExampleInputs, options: PruningOptions) -> Structure:
    """Return the structure to prune, after its check. That of the caller stays as it is."""
    if isinstance(net, Structure):
        if net.attention != options.attention:
            raise UserError(
                f"'{options.attention}' given, net was analysed with '{net.attention}'", argument="attention"
            )
        structure = replace(net, groups=list(net.groups))
        ignore = (*net.ignore, *options.ignore)
        structure.groups, structure.ignore = without_ignored(structure.groups, structure.traced.net, ignore)
    else:
        structure = analyse(net, at_batch(batch, 2), attention=options.attention, ignore=options.ignore)
    refuse_frozen(structure.traced)
    if options.check:
        check_groups(structure, structure.traced.example)
        check_removal(structure)
    return structure
