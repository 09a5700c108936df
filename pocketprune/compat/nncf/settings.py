"""What one filter-pruning entry of a configuration means, defaults included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.schema import FILTER_PRUNING
from pocketprune.compression.learned import Evolution
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import Schedule

CRITERIA = {"L1": "l1", "L2": "l2", "geometric_median": "geometric_median"}
MULTIPLE = 8
"""Kept counts are multiples of it where layers are ranked one by one."""
LEAST_KEPT = 0.1
"""Share of each layer that stays at least where filters of all layers compete to save FLOPs."""
BN_SAMPLES, TRAIN_STEPS = 2000, 200


@dataclass(frozen=True, kw_only=True)
class FilterPruning:
    """One entry with `"algorithm": "filter_pruning"`.

    Attributes:
        path: where it stands in the configuration.
        init, target: levels at the start and the end of the schedule.
        flops: whether they are shares of the network's FLOPs, and not of each layer's filters.
        schedule, warmup, steps: the schedule, the epochs before it and those in which the level rises.
        importance: what scores filters.
        all_weights: whether filters of all layers compete.
        learned: whether they compete by a learned ranking; save, load: files with its coefficients.
        first, strided: whether first and strided convolutions are pruned.
        ignored, targeted: scopes to be left alone, and the only ones to be pruned (None: all); `validated`: whether
            each must match something.
        bn_samples: images that batch-norm statistics are taken from.
        evolution, train_steps, max_pruning: of the learned ranking.
    """

    path: str
    init: float
    target: float
    flops: bool
    schedule: str
    warmup: int
    steps: int
    importance: str
    all_weights: bool
    learned: bool
    save: str
    load: str
    first: bool
    strided: bool
    ignored: tuple[str, ...]
    targeted: tuple[str, ...] | None
    validated: bool
    bn_samples: int
    evolution: Evolution
    train_steps: int
    max_pruning: float | None

    def level(self, epoch: int) -> float:
        """Return the level of an epoch, counted from 0."""
        return self.timetable.level(epoch)

    @property
    def timetable(self) -> Schedule:
        """The schedule."""
        return Schedule(name=self.schedule, init=self.init, target=self.target, start=self.warmup, steps=self.steps)

    def policy(self, groups: tuple[str, ...], *, allow_inexact: bool = False) -> Policy:
        """Return the policy for some channel groups, by name; `allow_inexact` is as in `compress`."""
        ranking = "learned" if self.learned else "global" if self.all_weights else "group"
        rule = Rule(
            groups=groups,
            criterion=CRITERIA[self.importance],
            ranking=ranking,
            normalise="none" if self.learned else "norm",
            share_of="latency" if self.flops else "channels",  # a cost that is handed over: NNCF's own count
            meet="below",
            schedule=self.timetable,
        )
        is_global = ranking != "group"
        return Policy(
            rules=(rule,),
            multiple=1 if is_global else MULTIPLE,
            floor=LEAST_KEPT if is_global and self.flops else 0.0,
            allow_inexact=allow_inexact,
        )


def filter_pruning_of(config: Mapping[str, Any]) -> FilterPruning:
    """Return the filter pruning that a checked configuration asks for.

    Raises:
        UserError: none or more than one is asked for, or values contradict each other.
    """
    listed = config.get("compression")
    if listed is None:
        raise UserError('none given; {"algorithm": "filter_pruning", ...} is accepted', argument="compression")
    entries = [listed] if isinstance(listed, Mapping) else list(listed)
    paths = ["compression" if isinstance(listed, Mapping) else f"compression[{n}]" for n in range(len(entries))]
    found = [(entry, path) for entry, path in zip(entries, paths, strict=True) if entry["algorithm"] == FILTER_PRUNING]
    if len(found) != 1:
        raise UserError(f"{len(found)} entries of filter_pruning given; one is accepted", argument="compression")
    return _resolved(config, *found[0])


def _resolved(config: Mapping[str, Any], entry: Mapping[str, Any], path: str) -> FilterPruning:
    params = entry.get("params", {})
    learned = params.get("interlayer_ranking_type") == "learned_ranking"
    all_weights = _either(entry, params, "all_weights", path, learned)
    if learned and not all_weights:
        raise UserError("false given with learned_ranking, which needs true", argument=f"{path}.params.all_weights")
    target = _target(params, path)
    init = float(_either(entry, params, "pruning_init", path, 0.0))
    if init > target:
        raise UserError(f"{init:g} given; it must not be above the target, {target:g}", argument=f"{path}.pruning_init")
    legr = params.get("legr_params", {})
    adaptation = entry.get("initializer", {}).get("batchnorm_adaptation", {})
    return FilterPruning(
        path=path,
        init=init,
        target=target,
        flops="pruning_flops_target" in params,
        schedule=params.get("schedule", "exponential"),
        warmup=int(params.get("num_init_steps", 0)),
        steps=int(params.get("pruning_steps", 100)),
        importance=params.get("filter_importance", params.get("weight_importance", "L2")),
        all_weights=all_weights,
        learned=learned,
        save=params.get("save_ranking_coeffs_path", ""),
        load=params.get("load_ranking_coeffs_path", ""),
        first=params.get("prune_first_conv", learned),
        strided=params.get("prune_downsample_convs", learned),
        ignored=(*_texts(config.get("ignored_scopes")), *_texts(entry.get("ignored_scopes"))),
        targeted=_texts(entry.get("target_scopes", config.get("target_scopes"))) or None,
        validated=entry.get("validate_scopes", config.get("validate_scopes", True)),
        bn_samples=int(adaptation.get("num_bn_adaptation_samples", BN_SAMPLES)),
        evolution=_evolution(legr),
        train_steps=int(legr.get("train_steps", TRAIN_STEPS)),
        max_pruning=legr.get("max_pruning"),
    )


def _target(params: Mapping[str, Any], path: str) -> float:
    if params.get("pruning_target") and params.get("pruning_flops_target"):
        raise UserError(
            "given beside pruning_target; one of the two is accepted", argument=f"{path}.params.pruning_flops_target"
        )
    return float(params.get("pruning_flops_target", params.get("pruning_target", 0.5)))


def _either(entry: Mapping[str, Any], params: Mapping[str, Any], key: str, path: str, default: Any) -> Any:
    """Return a value that stands beside `params` or in it."""
    if key in entry and key in params and entry[key] != params[key]:
        raise UserError(f"{params[key]!r} given, and {entry[key]!r} beside params", argument=f"{path}.params.{key}")
    return entry.get(key, params.get(key, default))


def _texts(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _evolution(legr: Mapping[str, Any]) -> Evolution:
    return Evolution(
        generations=int(legr.get("generations", 400)),
        population=int(legr.get("population_size", 64)),
        samples=int(legr.get("num_samples", 16)),
        mutated=legr.get("mutate_percent", 0.1),
        sigma=legr.get("scale_sigma", 1.0),
        seed=int(legr.get("random_seed", 42)),
    )
