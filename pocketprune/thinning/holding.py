"""Which groups' removal gives what it should, where that of all together does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pocketprune.common.errors import UserError
from pocketprune.structure.channel_groups import Structure
from pocketprune.thinning.proving import proved
from pocketprune.thinning.recipes import recipe_for

Kept = Mapping[str, Sequence[int]]
"""Group name -> channels that stay."""

NOT_PROVED = "removing its channels does not give what the masked network computes"


def is_exact(structure: Structure, kept: Kept) -> bool:
    """Whether no group that loses channels changes statistics by that."""
    return all(g.exact for g in structure.groups if g.name in kept and len(kept[g.name]) < g.size)


def holds(structure: Structure, kept: Kept) -> bool:
    """Whether the network thinned to these channels computes what it should."""
    try:
        proved(structure, recipe_for(structure, kept), is_exact(structure, kept))
    except UserError:
        return False
    return True


def groups_that_hold(structure: Structure, kept: Kept) -> dict[str, Sequence[int]]:
    """The part of `kept` that holds together: groups that fail alone are left out, then those that fail with others.

    All are tried at once; only where that fails are they tried in halves, down to the ones at fault.
    """

    def failing(names: Sequence[str]) -> set[str]:
        if holds(structure, {name: kept[name] for name in names}):
            return set()
        half = len(names) // 2
        return set(names) if half == 0 else failing(names[:half]) | failing(names[half:])

    alone = failing(list(kept))
    left = {name: kept[name] for name in kept if name not in alone}
    if not alone or holds(structure, left):
        return left
    together: dict[str, Sequence[int]] = {}
    for name, channels in left.items():
        if holds(structure, {**together, name: channels}):
            together[name] = channels
    return together


def check_removal(structure: Structure) -> list[str]:
    """Thin every prunable group to every other of its channels; mark those that do not hold as staying.

    What a long sweep decides is thinned at its end; this finds out at its beginning whether that will hold.

    Returns:
        The names of the groups marked.
    """
    kept = {g.name: range(1, g.size, 2) for g in structure.groups if g.prunable}
    held = groups_that_hold(structure, kept) if kept else {}
    bad = [name for name in kept if name not in held]
    structure.groups[:] = [
        replace(g, prunable=False, reason=NOT_PROVED) if g.name in bad else g for g in structure.groups
    ]
    return bad
