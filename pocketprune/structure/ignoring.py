"""Groups and layers that are to be left alone, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.structure.group import ChannelGroup

LEFT_ALONE = "it is to be left alone (ignore)"


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether a group, layer or tensor is among those named: by its own name, its module's, or with wildcards."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def without_ignored(
    groups: Sequence[ChannelGroup], net: nn.Module, ignore: Sequence[str]
) -> tuple[list[ChannelGroup], tuple[str, ...]]:
    """The groups, those that are named or touch a layer that is named marked as staying; and the names, checked.

    Args:
        ignore: names of groups, of modules (and all inside them) or of tensors; * and ? stand for anything.

    Raises:
        UserError: no sequence of names, or a name that fits nothing.
    """
    if isinstance(ignore, str) or not all(isinstance(name, str) for name in ignore):
        raise UserError(f"{ignore!r} given; a list of names of groups or layers is accepted", argument="ignore")
    names = [*(g.name for g in groups), *(path for path, _ in net.named_modules() if path)]
    names += [name for name, _ in (*net.named_parameters(), *net.named_buffers())]
    for pattern in ignore:
        if not any(is_named(name, [pattern]) for name in names):
            raise UserError(f"no group or layer '{pattern}'{nearest(pattern, dict.fromkeys(names))}", argument="ignore")
    marked = [
        replace(g, prunable=False, reason=LEFT_ALONE) if any(is_named(n, ignore) for n in _touched(g)) else g
        for g in groups
    ]
    return marked, tuple(ignore)


def _touched(group: ChannelGroup) -> set[str]:
    """The names of a group, of its layers and of every tensor that it has channels in."""
    tensors = {piece.tensor for channel in group.channels for piece in channel}
    return {group.name, *group.producers, *group.consumers, *group.products, *tensors}
