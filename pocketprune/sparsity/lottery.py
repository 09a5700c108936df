"""Lottery tickets: prune by magnitude, rewind the weights that stay, and train again (Frankle and Carbin 2019).

Round k of n masks the share 1 - (1 - S)^(k/n) of the weights. Those that stay return to what they were at the start of
the training, or after its first epochs (Frankle et al. 2020). As a control, a random ticket masks as many weights of
each layer, drawn by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.compression.schedules import Schedule
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule
from pocketprune.training.callbacks import Callback, TrainContext


def round_levels(level: float, rounds: int) -> list[float]:
    """Return the level of each round; each masks the same share of what is left."""
    return [1 - (1 - level) ** (number / rounds) for number in range(1, rounds + 1)]


class Snapshot(Callback):
    """Keeps a network's state as it is after some epochs of a training: what tickets rewind to.

    Args:
        net: the network, as it is before the training.
        epoch: after how many epochs; 0 keeps the state before the training.
    """

    name = "snapshot"

    def __init__(self, net: nn.Module, epoch: int = 0) -> None:
        self._epoch = epoch
        self.taken: dict[str, Tensor] = _copy(net)

    def on_start(self, context: TrainContext) -> None:
        """Check that the training gets so far.

        Raises:
            UserError: it ends before.
        """
        if self._epoch * context.per_epoch > context.total:
            raise UserError(
                f"{self._epoch} given, and the training has {context.total / context.per_epoch:g} epochs",
                argument="rewind_epoch",
            )

    def after_step(self, context: TrainContext) -> None:
        """Take the state where the epoch ends."""
        if self._epoch and context.step == self._epoch * context.per_epoch:
            self.taken = _copy(context.net)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that was taken."""
        return {"taken": dict(self.taken)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the state that was taken."""
        self.taken = dict(state["taken"])


def ticket(
    net: nn.Module, taken: Mapping[str, Tensor], policy: SparsityPolicy, level: float, *, rewind: bool = True
) -> SparsityController:
    """Mask the least weights of a trained network, and rewind the others in place. Return the controller of the masks.

    Args:
        net: the trained network of the round before, its masked weights zero.
        taken: the state to rewind to.
        policy: which weights; its only rule's criterion "random" draws the control.
        level: of this round.
        rewind: whether the weights that stay return to `taken`; else they go on from where they are.
    """
    rules = tuple(_at(rule, level) for rule in policy.rules)
    controller = sparsify(net, SparsityPolicy(rules=rules, ignore=policy.ignore, mask="hard", seed=policy.seed))
    controller.set_levels([level] * len(rules))
    controller.freeze()
    if rewind:
        own = {name: tensor.to(net.state_dict()[name].device) for name, tensor in taken.items()}
        net.load_state_dict(own)
        controller.masks.enforce()
    return controller


def _at(rule: WeightRule, level: float) -> WeightRule:
    return replace(rule, schedule=Schedule(name="one_shot", target=level))


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def control(policy: SparsityPolicy, number: int) -> SparsityPolicy:
    """Return the policy of the control of a round: as many weights of each layer, drawn by chance."""
    rules = tuple(
        WeightRule(layers=rule.layers, pattern=rule.pattern, criterion="random", schedule=rule.schedule)
        for rule in policy.rules
    )
    return SparsityPolicy(rules=rules, ignore=policy.ignore, mask=policy.mask, seed=policy.seed + number)
