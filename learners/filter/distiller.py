"""A run by a Distiller schedule: its pruners, learning rates and the epoch of the removal."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from learners.context import RunContext
from learners.filter.policies import refuse_flags_beside
from learners.train_settings import train_settings
from pocketprune import Policy, analyse
from pocketprune.common.errors import UserError
from pocketprune.compat.distiller.building import Plan, plan_for
from pocketprune.compat.distiller.rates import rate_factors
from pocketprune.compat.distiller.reading import read_document
from pocketprune.training.schedules import PerEpoch
from pocketprune.training.state import TrainSettings


def asked_schedule(run: RunContext, net: nn.Module) -> tuple[TrainSettings | None, TrainSettings | None, Policy]:
    """Return the trainings before and after the removal, None where there is none, and the policy.

    Raises:
        UserError: a fault in the file, told with its line, or flags that contradict it.
    """
    config, flags = run.config, run.config.filter_pruning
    refuse_flags_beside(config, "compress")
    if flags.fp_policy:
        raise UserError("given beside --compress, whose file says that", argument="policy")
    plan = plan_for(read_document(Path(flags.compress)), analyse(net, run.example))
    if plan.policy is None:
        raise UserError("no pruner and no regularizer acts in it", argument="compress")
    full = train_settings(config, config.train.nb_epochs_rat, run.device.type)
    epochs = max(1, round(full.epochs))
    removal = _removal(run, plan, epochs)
    if plan.rates:
        run.say("Learning rates: those of the schedule, times --lrn_rate_init")
    factors = rate_factors(plan.document, plan.rates, epochs)
    parts = [
        replace(
            full, epochs=float(last - first), schedule=PerEpoch(factors[first:last]) if plan.rates else full.schedule
        )
        if last > first
        else None
        for first, last in ((0, removal), (removal, epochs))
    ]
    _tell_of_pull(run, plan, removal)
    return parts[0], parts[1], replace(plan.policy, seed=config.run.seed)


def _removal(run: RunContext, plan: Plan, epochs: int) -> int:
    """Return the epoch at whose beginning channels are removed; without an extension the end."""
    given = run.config.filter_pruning.fp_tune_share
    if plan.removal is None:
        masking = round(epochs * (1 - given))
        if masking <= plan.last:
            words = f"it prunes until epoch {plan.last}, and the training with masks has {masking} (--nb_epochs)"
            raise UserError(words, argument="compress")
        return masking
    if given:
        raise UserError("given beside --compress, whose extension says when channels go", argument="fp_tune_share")
    if plan.removal > epochs:
        words = f"channels are removed at epoch {plan.removal}, and the training has {epochs} (--nb_epochs)"
        raise UserError(words, argument="compress")
    return plan.removal


def _tell_of_pull(run: RunContext, plan: Plan, removal: int) -> None:
    """Say so where a regularizer would act in a part of the training with masks only."""
    pull = plan.pull
    if pull is not None and (pull.start > 0 or pull.end < removal):
        run.say(f"Regularizer {pull.name}: acts in all {removal} epochs before the removal, not only in its own")
