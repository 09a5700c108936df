"""How to prune: the options of a pruning, checked once, and what it calls meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pocketprune.channel_pruning.results import LayerResult
from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.numerics.criteria import CONSUMER_CRITERIA
from pocketprune.structure.channel_groups import ATTENTION
from pocketprune.structure.layers import LAYERS, SHARED_INPUTS

REFITS = ("all", "pruned")
LARGEST_SEED = 2**63 - 1

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class PruningOptions:
    """The options of a channel pruning.

    Attributes:
        selection: how channels are chosen, one of "lasso", "obs", "magnitude" and "random".
        shared_input: what happens to an input that several layers read: "sample" (each layer reads its own subset),
            "couple" (channels are removed for all of them, chosen jointly) or "keep" (all channels stay).
        points_per_layer: positions sampled per image and layer; 0 takes all.
        channel_multiple: kept counts are multiples of this.
        cache_gb: GiB of feature maps held in memory between layers; the rest goes to disk.
        layers: "conv2d" (Conv2d with groups=1, as PocketFlow) or "all" (other convolutions and linear layers too).
        refit: "all" layers, those with unpruned inputs too (they make up for what earlier layers lost), or "pruned".
        branch_drift: whether layers before an addition make up for the drift of its other operand.
        attention: "heads" removes whole heads, "widths" narrows all heads alike.
        check: whether every channel group is permuted first, and left alone where that changes the output.
        group_size: prunable layers that are pruned before `Hooks.tune` trains the network; None: all.
        together: whether the processes of torch.distributed prune together, each on its own share of the images.
        seed: of the sampled positions and of random selection.

    Raises:
        UserError: a value that is not accepted.
    """

    selection: str = "lasso"
    shared_input: str = "sample"
    points_per_layer: int = 10
    channel_multiple: int = 1
    cache_gb: float = 4.0
    layers: str = "conv2d"
    refit: str = "all"
    branch_drift: bool = True
    attention: str = "heads"
    check: bool = True
    group_size: int | None = None
    together: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_words("selection", CONSUMER_CRITERIA)
        self._check_words("shared_input", SHARED_INPUTS)
        self._check_words("layers", LAYERS)
        self._check_words("refit", REFITS)
        self._check_words("attention", ATTENTION)
        self._check_whole("points_per_layer", 0, "0 (all) or more")
        self._check_whole("channel_multiple", 1, "1 or more")
        self._check_whole("seed", 0, f"0 to {LARGEST_SEED}", LARGEST_SEED)
        if self.group_size is not None:
            self._check_whole("group_size", 1, "1 or more")
        if not (isinstance(self.cache_gb, (int, float)) and self.cache_gb >= 0):
            raise UserError(f"{self.cache_gb} given; 0 or more is accepted", argument="cache_gb")

    def _check_words(self, name: str, accepted: Sequence[str] | Mapping[str, Any]) -> None:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in accepted:
            raise UserError(f"{value!r} given{nearest(str(value), accepted)}", argument=name)

    def _check_whole(self, name: str, least: int, words: str, most: int | None = None) -> None:
        value = getattr(self, name)
        if not hasattr(value, "__index__") or value < least or (most is not None and value > most):
            raise UserError(f"{value} given; a whole number, {words}, is accepted", argument=name)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a pruning calls, and where it resumes.

    Attributes:
        progress: called with (what, done, total).
        on_layer: called after each prunable layer.
        tune: called as `tune(net, number)` after every `group_size` prunable layers, while others follow; it trains
            the thinned network in place. Later layers read the tuned network; the targets stay the dense network's.
        on_state: called in every process after each layer and each tuning with the pruning's state, which holds plain
            values and tensors, to be saved.
        state: a state to resume from, to the same result.
    """

    progress: Progress | None = None
    on_layer: Callable[[LayerResult], None] | None = None
    tune: Callable[[nn.Module, int], None] | None = None
    on_state: Callable[[dict[str, Any]], None] | None = None
    state: Mapping[str, Any] | None = None

    def tell(self, what: str, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(what, done, total)
