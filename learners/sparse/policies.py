"""What the flags ask for, as the engine takes it."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager

from config import Config
from pocketprune.common.errors import UserError
from pocketprune.compression.schedules import Schedule
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule

PREFIX = "weights."  # of the engine's arguments that are parts of a policy, as flags know them
PARTS = {field.name for kind in (WeightRule, Schedule, SparsityPolicy) for field in dataclasses.fields(kind)}
RAMP = 0.75  # share of the epochs after the warm-up in which the level rises
TOLERANCE = 1e-9  # of a level


@contextmanager
def told() -> Iterator[None]:
    """Let an error about a part of the policy name its flag."""
    try:
        yield
    except UserError as error:
        if error.argument not in PARTS:
            raise
        argument = "ignore" if error.argument == "layers" else error.argument  # by the flags a rule means all layers
        raise UserError(error.message, argument=PREFIX + argument) from error


@contextmanager
def budget_told_as(argument: str) -> Iterator[None]:
    """Let an error about a search's budget name the flag of another argument."""
    try:
        yield
    except UserError as error:
        if error.argument not in ("budget.share", "share"):
            raise
        raise UserError(error.message, argument=argument) from error


def asked_policy(config: Config, epochs: float) -> SparsityPolicy:
    """Return the policy of a run that trains with masks for so many epochs.

    Raises:
        UserError: a flag is not accepted, or the level does not come to its target.
    """
    flags = config.sparsity
    whole = math.ceil(epochs)
    with told():
        start = flags.sp_warmup_epochs
        steps = flags.sp_ramp_epochs or max(1, math.ceil(RAMP * (whole - start)))
        schedule = Schedule(
            name=flags.sp_schedule,
            init=flags.sp_level_init,
            target=flags.sp_level,
            start=start,
            steps=steps,
            freeze=start + steps if flags.sp_ranking == "splicing" else None,  # until then weights may come back
        )
        if epochs and abs(schedule.level(whole - 1) - schedule.final) > TOLERANCE:
            raise UserError(
                f"the level is {schedule.level(whole - 1):.3g} in the last of {epochs:g} epochs, and not "
                f"{schedule.final:g}; a shorter ramp or warm-up or more epochs are accepted",
                argument="steps",
            )
        by_size = flags.sp_method == "lottery" and flags.sp_criterion == "obs"  # tickets are drawn from sizes
        rule = WeightRule(
            pattern=flags.sp_pattern,
            criterion="magnitude" if by_size else flags.sp_criterion,
            ranking=flags.sp_ranking,
            sensitivity=flags.sp_sensitivity,
            low=flags.sp_splice_low,
            high=flags.sp_splice_high,
            schedule=schedule,
        )
        ignore = tuple(name.strip() for name in flags.sp_ignore.split(",") if name.strip())
        return SparsityPolicy(rules=(rule,), ignore=ignore, mask=flags.sp_mask, seed=config.run.seed)
