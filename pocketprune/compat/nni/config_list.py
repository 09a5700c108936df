"""NNI's `config_list`: which layers are pruned, and how far. The words of v1, v2 and v3 are understood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest

WEIGHTED = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear",
            "Bilinear", "PReLU", "Embedding", "EmbeddingBag")  # fmt: skip
"""What the op type `default` stands for."""

LISTS = ("op_types", "op_names", "op_partial_names", "op_names_re", "exclude_op_names", "exclude_op_names_re",
         "exclude_op_types")  # fmt: skip
SHARES = ("sparsity", "sparsity_per_layer", "sparse_ratio", "total_sparsity")
LIMITS = ("max_sparsity_per_layer", "max_sparse_ratio")
AGP = ("initial_sparsity", "final_sparsity", "start_epoch", "end_epoch", "frequency")
ABSENT = {
    "sparse_threshold": "a share is accepted: sparse_ratio",
    "min_sparse_ratio": "each layer keeps one channel at least",
    "global_group_id": "one total_sparsity for all layers of an entry is accepted",
    "dependency_group_id": "a pruner with dummy_input finds what depends on what",
    "target_names": "the weight is pruned, and the bias follows it",
    "target_settings": "the weight is pruned, and the bias follows it",
    "internal_metric_block": "masks are element by element or filter by filter",
    "align": "the bias follows the weight",
}
KNOWN = (*LISTS, *SHARES, *LIMITS, *AGP, "exclude", "granularity")


@dataclass(frozen=True)
class Target:
    """One layer to be pruned.

    Attributes:
        name: of the layer.
        module: the layer.
        entry: the number of the entry of the config list that means it.
        settings: that entry.
    """

    name: str
    module: nn.Module
    entry: int
    settings: Mapping[str, Any]

    @property
    def sparsity(self) -> float:
        """The share that goes; of the whole entry with `total_sparsity`; 0 where a search is to find it."""
        given = [self.settings[key] for key in (*SHARES, "final_sparsity") if key in self.settings]
        return float(given[0]) if given else 0.0

    @property
    def is_joint(self) -> bool:
        """Whether the share is one of all layers of the entry together."""
        return "total_sparsity" in self.settings

    @property
    def limit(self) -> float:
        """The largest share of the layer that may go where layers are ranked together."""
        return float(next((self.settings[key] for key in LIMITS if key in self.settings), 0.99))


def targets_of(net: nn.Module, config_list: Any, accepted: Sequence[str], *, shares: bool = True) -> list[Target]:
    """Return the layers that a config list means, in the order of the network.

    The last entry that means a layer decides, as in v1 and v2; with v3's `sparse_ratio` the first one does.

    Args:
        net: the network.
        config_list: NNI's list of dicts.
        accepted: types of layers that the pruner takes.
        shares: whether entries have to say how far.

    Raises:
        UserError: the list breaks the schema (the message names the place), or means no layer.
    """
    modules = {n: m for n, m in net.named_modules() if n and isinstance(getattr(m, "weight", None), Tensor)}
    names = {name: type(module).__name__ for name, module in modules.items()}
    check(config_list, {name: type(module).__name__ for name, module in net.named_modules() if name}, shares)
    order = list(enumerate(config_list))
    if any("sparse_ratio" in entry for entry in config_list):
        order.reverse()
    found = []
    for name, module in modules.items():
        means = [number for number, entry in order if _means(entry, name, names[name])]
        if means and not config_list[means[-1]].get("exclude"):
            found.append(Target(name, module, means[-1], config_list[means[-1]]))
    fitting = [target for target in found if names[target.name] in accepted]
    unfit = next((t for t in found if names[t.name] not in accepted and _is_named(t)), None)
    if unfit is not None:
        raise UserError(
            f"config_list[{unfit.entry}]: '{unfit.name}' is a {names[unfit.name]}; {', '.join(accepted)} accepted"
        )
    if not fitting:
        kinds = sorted(set(names.values()))
        raise UserError(
            f"config_list: means no layer of {', '.join(accepted)}; the network has {', '.join(kinds) or 'none'}"
        )
    return fitting


def _is_named(target: Target) -> bool:
    """Return whether an entry asks for a layer as such, and not for all weighted ones."""
    return "default" not in target.settings.get("op_types", ["default"]) or target.name in target.settings.get(
        "op_names", []
    )


def _means(entry: Mapping[str, Any], name: str, kind: str) -> bool:
    if kind in entry.get("exclude_op_types", ()) or name in entry.get("exclude_op_names", ()):
        return False
    if any(re.search(pattern, name) for pattern in entry.get("exclude_op_names_re", ())):
        return False
    types = {t for given in entry.get("op_types", ()) for t in (WEIGHTED if given == "default" else (given,))}
    if "op_types" in entry and kind not in types:
        return False
    if not {"op_names", "op_partial_names", "op_names_re"} & set(entry):
        return True
    return (
        name in entry.get("op_names", ())
        or any(part in name for part in entry.get("op_partial_names", ()))
        or any(re.search(pattern, name) for pattern in entry.get("op_names_re", ()))
    )


def check(config_list: Any, names: Mapping[str, str], shares: bool = True) -> None:
    """Check a config list against the schema.

    Args:
        config_list: what was given.
        names: layer name -> type, of the network.
        shares: whether entries have to say how far.

    Raises:
        UserError: it breaks the schema; the message starts with the place, such as `config_list[0].sparsity`.
    """
    if not isinstance(config_list, (list, tuple)) or not config_list:
        raise UserError(f"config_list: {config_list!r} given; a list of dicts is accepted")
    for number, entry in enumerate(config_list):
        place = f"config_list[{number}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{place}: {entry!r} given; a dict is accepted")
        for key in entry:
            _check_key(f"{place}.{key}", str(key))
        for key in {*SHARES, *LIMITS, "initial_sparsity", "final_sparsity"} & set(entry):
            _check_share(f"{place}.{key}", entry[key])
        for key in set(LISTS) & set(entry):
            _check_list(f"{place}.{key}", entry[key])
        _check_known(place, entry, names)
        _check_targets(place, entry, shares)


def _check_key(place: str, key: str) -> None:
    if key in ABSENT:
        raise UserError(f"{place}: not here: {ABSENT[key]}")
    if key not in KNOWN:
        raise UserError(f"{place}: no such key{nearest(key, KNOWN)}")


def _check_share(place: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UserError(f"{place}: {value!r} given; [0, 1) accepted")


def _check_list(place: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{place}: {value!r} given; a list of names is accepted, such as [{value!r}]")


def _check_known(place: str, entry: Mapping[str, Any], names: Mapping[str, str]) -> None:
    kinds = {*names.values(), *WEIGHTED, "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "default"}
    given: Iterable[tuple[str, Iterable[str]]] = (
        *((key, names) for key in ("op_names", "exclude_op_names")),
        *((key, kinds) for key in ("op_types", "exclude_op_types")),
    )
    for key, known in given:
        unknown = next((item for item in entry.get(key, ()) if item not in known), None)
        if unknown is not None:
            raise UserError(f"{place}.{key}: '{unknown}' given{nearest(unknown, known)}")


def _check_targets(place: str, entry: Mapping[str, Any], needed: bool) -> None:
    shares = [key for key in (*SHARES, "final_sparsity") if key in entry]
    if entry.get("exclude"):
        return
    if len(shares) > 1 or (needed and not shares):
        raise UserError(f"{place}: {' and '.join(shares) or 'no share'} given; one of {', '.join(SHARES)} is accepted")
    if entry.get("granularity", "default") not in ("default", "out_channel"):
        raise UserError(f"{place}.granularity: {entry['granularity']!r} given; 'out_channel' accepted")
