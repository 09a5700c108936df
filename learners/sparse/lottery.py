"""Lottery tickets: rounds of training, pruning and rewinding, each round a phase of its own."""

import copy
from typing import Any

from torch import Tensor, nn

from learners.context import RunContext
from learners.fitting import fit
from learners.measuring import accuracy
from learners.sparse.policies import told
from pocketprune.common.errors import UserError
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController
from pocketprune.sparsity.layers import layers_by_rule
from pocketprune.sparsity.lottery import Snapshot, control, round_levels, ticket
from pocketprune.sparsity.policy import SparsityPolicy
from pocketprune.training.state import TrainSettings


def check_lottery(run: RunContext, policy: SparsityPolicy, training: TrainSettings | None) -> TrainSettings:
    """Return the settings of each round. Raises UserError for what no lottery can be drawn with."""
    flags, given = run.config.sparsity, run.config.net.init_checkpoint
    with told():
        layers_by_rule(run.net, policy)
    if training is None:
        raise UserError("--nb_epochs_rat=0: expected a number > 0 with --sp_method lottery, whose rounds are trainings")
    if given and flags.sp_rewind:
        raise UserError(
            f"--init_checkpoint={given}: tickets return to the weights before a training; accepted are a run that "
            "trains the dense network itself, and --sp_rewind=false"
        )
    if flags.sp_rewind_epoch > training.epochs:
        raise UserError(
            f"{flags.sp_rewind_epoch} given, and a round has {training.epochs:g} epochs", argument="rewind_epoch"
        )
    return training


def find_ticket(
    run: RunContext, net: nn.Module, policy: SparsityPolicy, settings: TrainSettings
) -> tuple[nn.Module, SparsityController, list[dict[str, Any]]]:
    """Draw a ticket in rounds, in place. Return the dense network, the ticket's controller, and a row for each round.

    Args:
        run: the run.
        net: the network as it is before its training.
        policy: which weights are masked; the level of the last round.
        settings: of each round; optimizer, schedule and order of the data start anew in each.
    """
    flags = run.config.sparsity
    snapshot = Snapshot(net, flags.sp_rewind_epoch)
    fit(run, net, "lottery_0", settings, "train", callbacks=[snapshot])
    dense = copy.deepcopy(net)
    rows: list[dict[str, Any]] = [{"round": 0, "level": 0.0, **accuracy(run, net)}]
    controller = None
    for number, level in enumerate(round_levels(flags.sp_level, flags.sp_rounds), start=1):
        if controller is not None:
            controller.detach()
        with told():
            controller = ticket(net, snapshot.taken, policy, level, rewind=flags.sp_rewind)
        fit(run, net, f"lottery_{number}", settings, "finetune", callbacks=[SparsityCallback(controller)])
        rows.append({"round": number, "level": level, **accuracy(run, net)})
        run.say(f"Round {number}: {level:.2%} of the weights masked, accuracy {rows[-1]['accuracy']:.2%}")
    assert controller is not None, "there is at least one round"
    if flags.sp_random_ticket:
        rows[-1]["random_accuracy"] = _random_ticket(run, net, snapshot.taken, policy, settings)
    return dense, controller, rows


def _random_ticket(
    run: RunContext, net: nn.Module, taken: dict[str, Tensor], policy: SparsityPolicy, settings: TrainSettings
) -> float:
    """Return the accuracy of a ticket of the last round's level that was drawn by chance."""
    other = copy.deepcopy(net)
    controller = ticket(other, taken, control(policy, run.config.sparsity.sp_rounds), run.config.sparsity.sp_level)
    fit(run, other, "lottery_random", settings, "finetune", callbacks=[SparsityCallback(controller)])
    found = accuracy(run, other)["accuracy"]
    run.say(f"Random ticket: accuracy {found:.2%}")
    return found
