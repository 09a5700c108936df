"""The one door to masks while training: a policy says whether they lie on channels or on single weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, overload

import torch.nn.functional as F
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression import controller as channels
from pocketprune.compression.controller import Controller
from pocketprune.compression.costs import Cost
from pocketprune.compression.policy import SHARES, Policy, Rule
from pocketprune.compression.questions import Loss
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule


@overload
def compress(
    net: nn.Module,
    example_inputs: ExampleInputs,
    policy: Policy,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = F.cross_entropy,
    cost: Cost | None = None,
) -> Controller: ...


@overload
def compress(
    net: nn.Module, example_inputs: ExampleInputs, policy: SparsityPolicy, batches: Iterable[Any] | None = None
) -> SparsityController: ...


@overload
def compress(
    net: nn.Module,
    example_inputs: ExampleInputs,
    policy: Mapping[str, Any],
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = F.cross_entropy,
    cost: Cost | None = None,
) -> Any: ...


def compress(
    net: nn.Module,
    example_inputs: ExampleInputs,
    policy: Policy | SparsityPolicy | Mapping[str, Any],
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = F.cross_entropy,
    cost: Cost | None = None,
) -> Controller | SparsityController:
    """Prepare a network for masks on its channel groups or its single weights; none is in place yet.

    The network stays a plain one, and the controller's `detach` gives it back what masks hide and have not erased.

    Args:
        net: the network that will be trained, without the wrappers of several processes or of a compiler.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        policy: what to do, or the dict that describes it. A dict is of single weights if it, or one of its rules, has a
            name that only their policies have, such as "level", "pattern" or "layers".
        batches: inputs, or pairs of inputs and labels, for criteria that need them. They are read anew each time
            masks are chosen, so a list or a data loader is accepted and a generator is not. Under several processes
            each brings its own.
        loss: (output, labels) -> scalar, for criteria of channels that need gradients.
        cost: what `share_of="latency"` means for channels, a function of the kept channels by group name, such as
            `MeasuredLatency` of `pocketprune.compression.latency`. A group that is not named keeps all.

    Raises:
        UserError: a network that cannot be traced, or a policy that cannot be carried out on it.
    """
    if isinstance(policy, SparsityPolicy) or (not isinstance(policy, Policy) and _of_weights(policy)):
        return sparsify(net, policy, example_inputs, batches)
    return channels.compress(net, example_inputs, policy, batches, loss=loss, cost=cost)


def _of_weights(policy: Any) -> bool:
    """Return whether a dict describes masks on single weights.

    Raises:
        UserError: it has names of both kinds.
    """
    if not isinstance(policy, Mapping):
        return False
    rules = policy.get("rules", ())
    parts = [policy, *rules] if isinstance(rules, (list, tuple)) else [policy]
    if any(isinstance(part, WeightRule) for part in parts):
        return True
    given = [str(name) for part in parts if isinstance(part, Mapping) for name in part]
    weights, groups = _names(SparsityPolicy, WeightRule) | {"level"}, _names(Policy, Rule) | {*SHARES}
    ours = next((name for name in given if name in weights - groups), None)
    theirs = next((name for name in given if name in groups - weights), None)
    if ours is not None and theirs is not None:
        raise UserError(f"'{ours}', of single weights, and '{theirs}', of channels, given", argument="policy")
    return ours is not None


def _names(*kinds: Any) -> set[str]:
    return {item.name for kind in kinds for item in fields(kind)}
