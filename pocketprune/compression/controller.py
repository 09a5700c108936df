"""The controller: carries out a policy inside any training loop, and removes what is masked at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.options import FRACTION, check_option
from pocketprune.common.steps import refuse_integers
from pocketprune.compression.costs import Cost
from pocketprune.compression.masks import ChannelMasks
from pocketprune.compression.planner import Planner
from pocketprune.compression.policy import Policy
from pocketprune.compression.questions import PARTS, Loss, Source
from pocketprune.compression.regularisers import REGULARISERS
from pocketprune.compression.scheduled import ScheduledController
from pocketprune.compression.statistics import Statistics
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.removal import remove_channels
from pocketprune.training.batch_norm import reestimate_batch_norm


def compress(
    net: nn.Module,
    example_inputs: ExampleInputs,
    policy: Policy | Mapping[str, Any],
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = F.cross_entropy,
    cost: Cost | None = None,
) -> Controller:
    """Prepare a network for masks on its channel groups; none is in place before the first `epoch_step`.

    The network stays a plain one, and `Controller.detach` gives it its hidden numbers back.

    Args:
        net: the network that will be trained, without the wrappers of several processes or of a compiler.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        policy: what to do, or the dict that describes it.
        batches: inputs, or pairs of inputs and labels, for criteria that need them. They are read anew each time
            channels are chosen, so a list or a data loader is accepted and a generator is not. Under several
            processes each brings its own.
        loss: (output, labels) -> scalar, for criteria that need gradients.
        cost: what `share_of="latency"` means, a function of the kept channels by group name, such as `MeasuredLatency`
            of `pocketprune.compression.latency`. A group that is not named keeps all.

    Raises:
        UserError: a network that cannot be traced, or a policy that cannot be carried out on it.
    """
    policy = policy if isinstance(policy, Policy) else Policy.from_dict(policy)
    if batches is not None:
        _check_lasting(batches)
    refuse_integers(net)
    structure = analyse(net, example_inputs, attention=policy.attention, allow_inexact=policy.allow_inexact)
    check_groups(structure, structure.traced.example)
    return compress_analysed(structure, policy, batches, loss=loss, cost=cost)


def compress_analysed(
    structure: Structure,
    policy: Policy,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = F.cross_entropy,
    cost: Cost | None = None,
    idle: bool = False,
) -> Controller:
    """Do what `compress` does with a network that is analysed and checked already; the arguments are its own.

    Args:
        idle: whether a rule may be without a group that is wide enough for the policy's multiple, as in NNCF.
    """
    planner = Planner(policy, Source(structure, batches, loss), cost)
    if not idle:
        planner.check_multiples()
    return Controller(structure.traced.net, structure.traced.example, policy, planner)


def _check_lasting(batches: Any) -> None:
    if isinstance(batches, Tensor) or not hasattr(batches, "__iter__"):
        raise UserError(f"{type(batches).__name__} given; a list or a data loader is accepted", argument="batches")
    if iter(batches) is batches:
        raise UserError("can be read only once; a list or a data loader is accepted", argument="batches")


class Controller(ScheduledController):
    """Carries out a policy on one network; `compress` makes it.

    In one's own loop, with any optimizer:

        for epoch in range(epochs):
            controller.epoch_step()
            for images, labels in loader:
                loss = criterion(net(images), labels) + controller.loss()
                ...
                optimizer.step()
                controller.step()
        smaller = controller.remove()

    Attributes:
        net: the network.
        policy: what is to be done.
        planner: chooses what is masked.
        masks: what is masked at present.
        epoch: the epoch under way, from 0; -1 before the first.
        steps: training steps done.
        levels: the level of each rule at present.
    """

    def __init__(self, net: nn.Module, example: Any, policy: Policy, planner: Planner) -> None:
        self.policy, self._example, self.planner = policy, example, planner
        self.masks = ChannelMasks(net, list(planner.views.values()), policy.mask)
        super().__init__(net, policy, self.masks, [scope.rule.schedule for scope in planner.scopes])

    def loss(self) -> Tensor:
        """Return the penalties of the rules' regularisers, a scalar to be added to the task's loss."""
        tensors = dict(self.net.named_parameters(remove_duplicate=False))
        penalties = [
            scope.rule.strength
            * REGULARISERS[scope.rule.regulariser](tensors, self.planner.views_of(scope), scope.rule.side)
            for scope in self.planner.scopes
            if scope.rule.regulariser != "none"
        ]
        return torch.stack(penalties).sum() if penalties else torch.zeros((), device=device_of(self.net))

    @property
    def has_penalty(self) -> bool:
        """Whether `loss` is ever other than 0."""
        return any(scope.rule.regulariser != "none" for scope in self.planner.scopes)

    def set_levels(self, levels: Sequence[float], optimizer: Optimizer | None = None) -> None:
        """Choose masks at given levels, one for each rule, whatever the schedules say.

        Raises:
            UserError: another number of levels, or one that is no level.
        """
        if not isinstance(levels, Sequence) or len(levels) != len(self.planner.scopes):
            raise UserError(f"{levels!r} given for {len(self.planner.scopes)} rules", argument="levels")
        for level in levels:
            check_option("levels", level, FRACTION)
        self._update(list(zip(range(len(self.planner.scopes)), levels, strict=True)), optimizer)

    def set_group_levels(self, levels: Mapping[str, float], optimizer: Optimizer | None = None) -> None:
        """Choose masks of some groups, by name, each at a level of its own, a share of its channels.

        Raises:
            UserError: no rule means a group of that name.
        """
        with self._as_hidden():
            chosen = self.planner.choose_alone(levels, self.masks.masked)
        self._put(chosen, optimizer)

    def kept(self) -> dict[str, list[int]]:
        """Return the channels that are not masked, of each group that a rule means."""
        return {name: self.masks.kept(name) for name in self.planner.views}

    def inexact(self) -> list[str]:
        """Return the names of the groups with masked channels that a layer or group norm mixes.

        There the network without them is normalised otherwise than the masked one.
        """
        groups = (views.group for views in self.planner.views.values())
        return [group.name for group in groups if not group.exact and bool(self.masks.masked[group.name].any())]

    def remove(self, adapt: Iterable[Tensor] | None = None, refit: Iterable[ExampleInputs] | None = None) -> nn.Module:
        """Return a copy of the network without what is masked; the network itself stays as it is.

        Args:
            adapt: batches of inputs, with labels or without, that batch-norm statistics are taken from anew; None: they
                stay.
            refit: batches of inputs, with labels or without, on which all layers are refitted in closed form to what
                they put out with the hidden numbers in place. That is of use as long as these are those of a trained
                network: right after the masks have been set. None: weights stay.
        """
        if refit is not None:
            with self.masks.lifted():
                smaller = self.planner.refitted_without(self.masks.masked, refit)
        else:
            device = device_of(self.net)
            example = pytree.tree_map_only(Tensor, lambda t: t.to(device), self._example)
            policy, kept = self.policy, self.kept()
            smaller = remove_channels(
                self.net, example, kept, attention=policy.attention, allow_inexact=policy.allow_inexact, check=False
            )
        if adapt is not None:
            reestimate_batch_norm(smaller, self.planner.inputs(adapt))
        return smaller

    def mask(self, net: nn.Module) -> None:
        """Put the masks on a copy of the network, such as a moving average, in place."""
        self.masks.enforce(net)

    def detach(self) -> None:
        """Take off all masks: the network gets its hidden numbers back, and its parameters lose their hooks."""
        self.masks.detach()

    def statistics(self) -> Statistics:
        """Return what is masked at present."""
        return self.planner.statistics(self.masks.masked, self.levels)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs beside the network's own state: tensors and plain values."""
        return {
            **self._progress(),
            "coefficients": {name: list(pair) for name, pair in self.planner.coefficients.items()},
            "masks": self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            UserError: it is no such state, or one of another policy.
        """
        if not isinstance(state, Mapping) or set(state) != set(self.state_dict()):
            raise UserError("not the state of a controller", argument="state")
        self._load_progress(state)
        self.planner.coefficients = {name: (scale, shift) for name, (scale, shift) in state["coefficients"].items()}
        self.masks.load_state_dict(state["masks"])

    def _update(self, due: Sequence[tuple[int, float]], optimizer: Optimizer | None) -> None:
        """Choose the masks of some rules, given by number, at their levels."""
        if not due:
            return
        for number, level in due:
            self.levels[number] = level
        by_gradients = [one for one in due if PARTS[self.planner.scopes[one[0]].rule.criterion] == "gradients"]
        evidence = self.planner.evidence(by_gradients)  # of the network as it trains: hidden numbers fit it no more
        with self._as_hidden():
            evidence |= self.planner.evidence([one for one in due if one not in by_gradients])
            chosen = self.planner.choose(due, self.masks.masked, evidence)
        self._put(chosen, optimizer)

    def _as_hidden(self) -> AbstractContextManager[None]:
        """Give the network the numbers that channels are chosen by."""
        return self.masks.lifted() if self.policy.mask == "soft" else nullcontext()

    def _put(self, chosen: Mapping[str, Tensor], optimizer: Optimizer | None) -> None:
        """Mask the chosen channels, after a refit where the policy asks for one."""
        fits = self.planner.refitted({**self.masks.masked, **chosen}) if self.policy.refit else {}
        self.masks.set(chosen)
        self.masks.write(fits)
        if optimizer is not None:
            self.masks.enforce_on(optimizer)
