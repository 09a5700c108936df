"""What an NNCF configuration may say: every key, and what it accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest, similar

Check = Callable[[Any, str], None]
"""(value, its path in the configuration) -> None, or a UserError."""

FILTER_PRUNING, QUANTIZATION = "filter_pruning", "quantization"
NOT_THERE = {
    "magnitude_sparsity": "zeros in single weights make no network smaller; filter_pruning removes whole filters",
    "rb_sparsity": "zeros in single weights make no network smaller; filter_pruning removes whole filters",
    "movement_sparsity": "zeros in single weights make no network smaller; filter_pruning removes whole filters",
    "const_sparsity": "a mask that never changes; filter_pruning is accepted",
    "binarization": "one-bit weights are not supported; filter_pruning is accepted",
    "knowledge_distillation": "add a distillation loss to your own; filter_pruning is accepted",
}
"""NNCF's other algorithms -> why they are refused."""

ALMOST = 0.85
"""How alike a top-level key must be to a known one to count as misspelt: scripts keep settings of their own there."""


def refuse(value: Any, path: str, accepted: str) -> None:
    """Raise the error that a value is not accepted."""
    raise UserError(f"{value!r} given; {accepted} accepted", argument=path)


def number(low: float, high: float = float("inf"), *, low_open: bool = False, closed: bool = False) -> Check:
    """Return a check for a number in an interval."""
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{']' if closed else ')'}"

    def check(value: Any, path: str) -> None:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            refuse(value, path, interval)
        if (low_open and value == low) or (value == high and not closed):
            refuse(value, path, interval)

    return check


def whole(least: int) -> Check:
    """Return a check for a whole number; 20.0 is one."""

    def check(value: Any, path: str) -> None:
        is_whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole or value < least:
            refuse(value, path, f"a whole number, {least} or more,")

    return check


def word(*accepted: str) -> Check:
    """Return a check for one of some words."""

    def check(value: Any, path: str) -> None:
        if value not in accepted:
            raise UserError(f"{value!r} given{nearest(str(value), accepted)}", argument=path)

    return check


def of_type(kind: type, accepted: str) -> Check:
    """Return a check for a type."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, kind):
            refuse(value, path, accepted)

    return check


def list_or_one(item: Check) -> Check:
    """Return a check for one value, or a list of such."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, (list, tuple)):
            for place, each in enumerate(value):
                item(each, f"{path}[{place}]")
        else:
            item(value, path)

    return check


def section(keys: Mapping[str, Check], *, others: bool = False) -> Check:
    """Return a check for keys with values; with `others`, unknown keys that are not near a known one pass."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            refuse(value, path or "configuration", "keys with values are")
        for key, inside in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key in keys:
                keys[key](inside, where)
            elif not others or similar(str(key), keys, ALMOST):
                raise UserError(f"unknown{nearest(str(key), keys)}", argument=where)

    return check


def _entry(value: Any, path: str) -> None:
    """Check one algorithm."""
    if not isinstance(value, Mapping) or "algorithm" not in value:
        refuse(value, path, '{"algorithm": "filter_pruning", ...} is')
    name = value["algorithm"]
    if name in NOT_THERE:
        raise UserError(f"'{name}' given; {NOT_THERE[name]}", argument=f"{path}.algorithm")
    word(FILTER_PRUNING, QUANTIZATION)(name, f"{path}.algorithm")
    (QUANTIZATION_ENTRY if name == QUANTIZATION else ENTRY)(value, path)


def _only_false(value: Any, path: str) -> None:
    """Accept false alone."""
    if value is not False:
        refuse(value, path, "false is")


def _anything(value: Any, path: str) -> None:
    """Accept every value."""


LEVEL, TEXT, FLAG = number(0, 1), of_type(str, "a text is"), of_type(bool, "true and false are")
TEXTS = list_or_one(TEXT)

LEGR = section(
    {
        "generations": whole(1),
        "train_steps": whole(0),
        "max_pruning": LEVEL,
        "random_seed": whole(0),
        "population_size": whole(1),
        "num_samples": whole(1),
        "mutate_percent": number(0, 1, low_open=True, closed=True),
        "scale_sigma": number(0),
    }
)
IMPORTANCE = word("L2", "L1", "geometric_median")
PARAMS = {
    "pruning_init": LEVEL,
    "pruning_target": LEVEL,
    "pruning_flops_target": LEVEL,
    "num_init_steps": whole(0),
    "pruning_steps": whole(1),
    "schedule": word("exponential", "exponential_with_bias", "baseline"),
    "filter_importance": IMPORTANCE,
    "weight_importance": IMPORTANCE,  # its name before NNCF 2.0
    "interlayer_ranking_type": word("unweighted_ranking", "learned_ranking"),
    "all_weights": FLAG,
    "prune_first_conv": FLAG,
    "prune_downsample_convs": FLAG,
    "prune_batch_norms": FLAG,
    "save_ranking_coeffs_path": TEXT,
    "load_ranking_coeffs_path": TEXT,
    "legr_params": LEGR,
}
SCOPES = {"ignored_scopes": TEXTS, "target_scopes": TEXTS, "validate_scopes": FLAG}
ENTRY = section(
    {
        "algorithm": TEXT,
        "pruning_init": LEVEL,
        "all_weights": FLAG,  # as an example of NNCF's documentation has it
        "initializer": section({"batchnorm_adaptation": section({"num_bn_adaptation_samples": whole(0)})}),
        "params": section(PARAMS),
        "compression_lr_multiplier": number(0),
        **SCOPES,
    }
)
BITS = number(2, 8, closed=True)
SIDE = {"bits": BITS, "mode": word("symmetric", "asymmetric")}
QUANTIZATION_ENTRY = section(
    {
        "algorithm": TEXT,
        "preset": word("performance", "mixed"),
        "overflow_fix": word("enable", "disable", "first_layer_only"),
        "weights": section({"bits": BITS, "mode": word("symmetric"), "per_channel": FLAG}),
        "activations": section({**SIDE, "per_channel": _only_false}),
        "initializer": section(
            {
                "range": section({"num_init_samples": whole(1), "type": TEXT}),
                "batchnorm_adaptation": section({"num_bn_adaptation_samples": whole(0)}),
            }
        ),
        "ignored_scopes": TEXTS,
    }
)
"""Modes and types of ranges are accepted and not used: ranges hold 0 and are those of the least squared error."""
DROPS = {
    "maximal_relative_accuracy_degradation": number(0, 100, closed=True),
    "maximal_absolute_accuracy_degradation": number(0),
}
SHARE = number(0, 1, low_open=True)
ACCURACY_AWARE = section(
    {
        "mode": word("adaptive_compression_level", "early_exit"),
        "params": section(
            {
                **DROPS,
                "initial_training_phase_epochs": whole(0),
                "patience_epochs": whole(1),
                "initial_compression_rate_step": SHARE,
                "minimal_compression_rate_step": SHARE,
                "compression_rate_step_reduction_factor": SHARE,
                "lr_reduction_factor": number(0, 1, low_open=True, closed=True),
                "maximal_total_epochs": whole(1),
            }
        ),
    }
)
INPUT = section({"sample_size": list_or_one(whole(1)), "type": TEXT, "filler": TEXT, "keyword": TEXT})
CONFIG = section(
    {
        "input_info": list_or_one(INPUT),
        "input_infos": list_or_one(INPUT),  # as a page of NNCF's documentation has it
        "compression": list_or_one(_entry),
        "accuracy_aware_training": ACCURACY_AWARE,
        "target_device": TEXT,
        "compression_lr_multiplier": number(0),
        "disable_shape_matching": FLAG,
        "log_dir": TEXT,
        **SCOPES,
    },
    others=True,
)
"""The check of a whole configuration. Keys of a training script beside NNCF's own pass, as in NNCF."""
