"""Pruning with options and hooks in one dict, as tests vary them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from pocketprune import Hooks, PruneResult, PruningOptions, prune_channels

HOOKS = {field.name for field in fields(Hooks)}


def prune(net: nn.Module, batches: Sequence[Any], target: Any = 0.5, **given: Any) -> PruneResult:
    """`prune_channels` with whatever options and hooks are given."""
    hooks = {name: given.pop(name) for name in list(given) if name in HOOKS}
    return prune_channels(net, batches, target, options=PruningOptions(**given), hooks=Hooks(**hooks))
