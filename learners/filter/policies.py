"""The policy of a run: what the flags say, or a file."""

import dataclasses
import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import Config, FilterPruningConfig
from pocketprune import ChannelGroup, Policy
from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.common.registry import one_line
from pocketprune.compression.policy import Rule
from pocketprune.compression.schedules import Schedule

PREFIX = "policy."  # of the engine's arguments that are parts of a policy, as flags know them
PARTS = {field.name for kind in (Rule, Schedule, Policy) for field in dataclasses.fields(kind)}
RAMP = 0.75  # share of the epochs after the warm-up in which the level rises
TOLERANCE = 1e-9  # of a level


def asked_policy(config: Config, epochs: int) -> Policy:
    """Return the policy of a run that trains with masks for so many epochs, the last of which may be a part of one.

    Raises:
        UserError: a flag or the file is not accepted, or the two contradict each other.
    """
    flags = config.filter_pruning
    with told(config):
        policy = _from_file(config) if flags.fp_policy else _from_flags(config, epochs)
    return dataclasses.replace(policy, refit=policy.refit or flags.fp_refit == "steps")


@contextmanager
def told(config: Config) -> Iterator[None]:
    """Let an error about a part of the policy name the flag or the file that says it."""
    try:
        yield
    except UserError as error:
        if error.argument not in PARTS:
            raise
        if (
            file := "compress"
            if config.filter_pruning.compress
            else "policy"
            if config.filter_pruning.fp_policy
            else ""
        ):
            raise UserError(str(error), argument=file) from error
        if error.argument == "groups":  # by the flags the rule means all groups
            ignored = config.filter_pruning.fp_ignore
            raise UserError(error.message, argument=f"{PREFIX}ignore" if ignored else "net") from error
        raise UserError(error.message, argument=PREFIX + error.argument) from error


def check_target_met(config: Config, policy: Policy, steps: int, per_epoch: int) -> None:
    """Check that every schedule comes to its end while the network is trained.

    Args:
        config: names the flags or the file.
        policy: what is to be done.
        steps: of the training with masks.
        per_epoch: how many of them make an epoch.

    Raises:
        UserError: a level stays below its target.
    """
    for rule in policy.rules:
        schedule = rule.schedule
        times = math.ceil(steps / per_epoch) if schedule.unit == "epoch" else steps + 1
        reached = next((schedule.level(t) for t in reversed(range(times)) if schedule.changes(t)), 0.0)
        if abs(reached - schedule.final) > TOLERANCE:
            with told(config):
                raise UserError(
                    f"the level is {reached:.3g} after {steps / per_epoch:.3g} epochs, when the training with masks "
                    f"ends, and not {schedule.final:g}; a shorter ramp or warm-up, a later freeze or more epochs are "
                    "accepted",
                    argument="steps",
                )


def write_template(path: Path, groups: Sequence[ChannelGroup]) -> None:
    """Write a policy of one rule that names all groups that can be pruned, with every default, as JSON."""
    rule = Rule(groups=tuple(group.name for group in groups if group.prunable))
    text = json.dumps(Policy(rules=(rule,)).to_dict(), indent=2)
    write_atomically(path, f"{text}\n".encode())


def _from_flags(config: Config, epochs: int) -> Policy:
    flags = config.filter_pruning
    rising = math.ceil(RAMP * max(1, epochs - flags.fp_warmup_epochs))
    schedule = Schedule(
        name=flags.fp_schedule,
        init=flags.fp_level_init,
        target=flags.fp_level,
        start=flags.fp_warmup_epochs,
        steps=flags.fp_ramp_epochs or rising,
        freeze=flags.fp_freeze_epoch,
    )
    rule = Rule(
        criterion=flags.fp_criterion,
        side=flags.fp_side,
        aggregate=flags.fp_aggregate,
        ranking=flags.fp_ranking,
        share_of=flags.fp_share_of,
        schedule=schedule,
        regulariser=flags.fp_regulariser,
        strength=flags.fp_strength,
    )
    return Policy(
        rules=(rule,),
        ignore=tuple(name.strip() for name in flags.fp_ignore.split(",") if name.strip()),
        mask=flags.fp_mask,
        multiple=flags.fp_multiple,
        allow_inexact=flags.fp_allow_inexact,
        seed=config.run.seed,
    )


def _from_file(config: Config) -> Policy:
    flags = config.filter_pruning
    refuse_flags_beside(config, "fp_policy")
    content = read_policy(Path(flags.fp_policy))
    if isinstance(content, dict):
        content = {"seed": config.run.seed, **content}
    try:
        return Policy.from_dict(content)
    except TypeError as error:  # a list where a name is expected
        raise UserError(f"malformed ({one_line(error)})", argument="policy") from error


def refuse_flags_beside(config: Config, file: str) -> None:
    """Check that no flag says what a file says, which is given by the flag ``file``.

    Raises:
        UserError: one does.
    """
    for field in dataclasses.fields(FilterPruningConfig):
        argument = field.metadata["argument"]
        if argument.startswith(PREFIX) and getattr(config.filter_pruning, field.name) != field.default:
            raise UserError(f"given beside --{file}, whose file says that", argument=argument)


def read_policy(path: Path) -> Any:
    """Return the content of a JSON or YAML file: dicts, lists and plain values.

    Raises:
        UserError: it cannot be read, or YAML cannot be read here.
    """
    readers = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
    if path.suffix not in readers:
        raise UserError(f"a file's name that ends in {', '.join(readers)} is accepted", argument="policy")
    if not path.is_file():
        raise UserError("no such file", argument="policy")
    try:
        return readers[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be read ({one_line(error)})", argument="policy") from error


def _read_json(text: str) -> Any:
    return json.loads(text)


def _read_yaml(text: str) -> Any:
    if importlib.util.find_spec("yaml") is None:
        raise UserError(
            'needs pyyaml, not installed here; pip install "pocketprune[policies]" installs it; .json needs nothing',
            argument="policy",
        )
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # they may grow without end
            raise UserError("aliases (*name) are not accepted", argument="policy")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"no YAML ({one_line(error)})", argument="policy") from error
