"""Scopes: which channel groups of a network each rule of a policy means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compression.policy import Policy, Rule
from pocketprune.structure.group import ChannelGroup


@dataclass(frozen=True)
class Scope:
    """A rule with the groups that it means, in forward order."""

    rule: Rule
    groups: tuple[ChannelGroup, ...]


def scopes_of(policy: Policy, groups: Sequence[ChannelGroup], net: nn.Module) -> list[Scope]:
    """Return the scope of each rule.

    Raises:
        UserError: a pattern that matches nothing, a named group that must stay, or one that is ignored by another name.
    """
    ignored = _ignored(policy.ignore, groups, net)
    scopes: list[Scope] = []
    taken: set[str] = set()
    for rule in policy.rules:
        asked = {group.name: _asked(rule, group) for group in groups}
        for pattern in rule.groups:
            _check_pattern(pattern, groups)
        for group in groups:
            _check_apart(group, asked[group.name], ignored.get(group.name, {}))
        meant = tuple(
            group
            for group in groups
            if asked[group.name] and group.prunable and group.name not in ignored and group.name not in taken
        )
        if not meant:
            raise UserError(f"{', '.join(rule.groups)}: {_why_none(groups, asked, taken)}", argument="groups")
        taken |= {group.name for group in meant}
        scopes.append(Scope(rule, meant))
    return scopes


def _names(group: ChannelGroup) -> list[str]:
    """The names that a group goes by: its own and those of the layers that write it."""
    return list(dict.fromkeys((group.name, *group.producers)))


def _asked(rule: Rule, group: ChannelGroup) -> dict[str, str]:
    """Name of the group -> the first pattern of a rule that matches it."""
    found = {name: next((p for p in rule.groups if fnmatchcase(name, p)), "") for name in _names(group)}
    return {name: pattern for name, pattern in found.items() if pattern}


def _ignored(patterns: Sequence[str], groups: Sequence[ChannelGroup], net: nn.Module) -> dict[str, dict[str, str]]:
    """Group -> the names by which it is ignored -> the pattern that does it."""
    types = {path: type(module).__name__ for path, module in net.named_modules()}
    found: dict[str, dict[str, str]] = {}
    for pattern in patterns:
        hits = [(g, name) for g in groups for name in _names(g) if pattern in (name, types.get(name))]
        hits += [(g, name) for g in groups for name in _names(g) if fnmatchcase(name, pattern)]
        if not hits:
            known = [name for group in groups for name in _names(group)]
            raise UserError(f"'{pattern}' given{nearest(pattern, [*known, *types.values()])}", argument="ignore")
        for group, name in hits:
            found.setdefault(group.name, {}).setdefault(name, pattern)
    return found


def _check_pattern(pattern: str, groups: Sequence[ChannelGroup]) -> None:
    hits = [group for group in groups if any(fnmatchcase(name, pattern) for name in _names(group))]
    if not hits:
        known = [name for group in groups if group.prunable for name in _names(group)]
        raise UserError(f"'{pattern}' given{nearest(pattern, known)}", argument="groups")
    if not any(sign in pattern for sign in "*?[") and not any(group.prunable for group in hits):
        raise UserError(f"'{pattern}' must stay whole: {hits[0].reason}", argument="groups")


def _check_apart(group: ChannelGroup, asked: dict[str, str], ignored: dict[str, str]) -> None:
    """Refuse a group that is asked for by one name and ignored by another; a plain "*" asks for none by name."""
    named = {name: pattern for name, pattern in asked.items() if pattern != "*"}
    if not ignored or not group.prunable:
        return
    other = next(iter(ignored))
    for name, pattern in named.items():
        if name not in ignored:
            raise UserError(
                f"'{name}' is asked for and shares its channels with '{other}', which is ignored", argument="ignore"
            )
        if pattern == name == ignored[name]:
            raise UserError(f"'{name}' is asked for and ignored", argument="ignore")


def _why_none(groups: Sequence[ChannelGroup], asked: dict[str, dict[str, str]], taken: set[str]) -> str:
    hits = [group for group in groups if asked[group.name]]
    if any(group.name in taken for group in hits):
        return "earlier rules take all of its groups"
    if any(group.prunable for group in hits):
        return "all of its groups are ignored"
    return f"all of its groups must stay whole: {hits[0].reason}"
