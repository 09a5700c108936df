"""The options of a pruning, and the functions that it calls meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from pocketprune.channel_pruning.results import LayerResult
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, NOT_NEGATIVE, Interval, check_options, option
from pocketprune.numerics.criteria import CONSUMER_CRITERIA
from pocketprune.structure.channel_groups import ATTENTION
from pocketprune.structure.layers import LAYERS, SHARED_INPUTS

SEEDS = Interval(0, 2**63 - 1, whole=True)

Progress = Callable[[str, int, int], None]
"""A function that is called with a text for the current work, the amount done, and the total."""


@dataclass(frozen=True, kw_only=True)
class PruningOptions:
    """The options of a channel pruning.

    Raises:
        UserError: a value that is not accepted.
    """

    selection: str = option(
        "lasso",
        "how channels are chosen: lasso (LARS path), obs (backward elimination with exact refit), magnitude "
        "or random; the weights are refitted by least squares after each of them",
        accept=tuple(CONSUMER_CRITERIA),
    )
    shared_input: str = option(
        "sample",
        "a layer that reads a shared tensor (a residual sum): sample (keeps its own subset of it), couple "
        "(the shared channels go for all readers at once), keep (all stay)",
        accept=SHARED_INPUTS,
    )
    allocation: str = option(
        "divergence",
        "a share of the MACs as the target: divergence (the ratios that change the output least, to second order) or "
        "uniform (the largest common ratio)",
        accept=("divergence", "uniform"),
    )
    metric: str = option(
        "divergence",
        "how selection weighs a layer's outputs: divergence (by what their errors do to the network's output) or norm "
        "(by the scale of the batch norm that follows)",
        accept=("divergence", "norm"),
    )
    points_per_layer: int = option(
        10, "positions per image and layer that the statistics come from; 0: all", accept=COUNT_OR_ZERO
    )
    channel_multiple: int = option(1, "keep multiples of this many channels", accept=COUNT)
    cache_gb: float = option(4.0, "memory for cached activations, in GB; the rest goes to disk", accept=NOT_NEGATIVE)
    moments_gb: float = option(
        2.0, "layers whose statistics need more memory than this, in GB, are left alone", accept=NOT_NEGATIVE
    )
    layers: str = option(
        "conv2d",
        "conv2d (with groups=1, as PocketFlow) or all (other convolutions and linear layers too)",
        accept=tuple(LAYERS),
    )
    refit: str = option(
        "all",
        "all layers (those with unpruned inputs correct errors of earlier layers) or only the pruned ones",
        accept=("all", "pruned"),
    )
    depthwise: bool = option(True, "with refit all, refit the channels of depthwise convolutions as well")
    branch_drift: bool = option(True, "layers before an addition correct the drift of its other operand")
    attention: str = option("heads", "heads removes whole heads, widths narrows all heads alike", accept=ATTENTION)
    check: bool = option(True, "permute every channel group first, and leave it alone where that changes the output")
    group_size: int | None = option(
        None, "prunable layers that are pruned before `Hooks.tune` trains the network; None: all", accept=COUNT
    )
    together: bool = option(False, "the processes of torch.distributed prune together, each on its share of the images")
    ignore: tuple[str, ...] = option((), "names of groups or layers that are left alone, * and ? for anything")
    seed: int = option(0, "of the sampled positions and of random selection", accept=SEEDS)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """The functions that a pruning calls, and the state from which it resumes.

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
