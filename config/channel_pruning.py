"""The settings of --learner channel, except those of the search.

Names and defaults are PocketFlow's, where it has them.
"""

import math
from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, NOT_NEGATIVE, POSITIVE, SHARE


@dataclass(frozen=True)
class ChannelPruningConfig(Concern):
    """The settings of channel pruning."""

    title = "Channel pruning (--learner channel)"

    cp_prune_option: str = setting(
        "uniform",
        "where the preserve ratios come from: uniform (one for all layers), list (a file, one per layer) or auto "
        "(searched under a budget, see --cp_search)",
        accept=("uniform", "list", "auto"),
    )
    cp_uniform_preserve_ratio: float = setting(
        0.6, "uniform: share of its input channels that each layer keeps", accept=SHARE
    )
    cp_prune_list_file: str = setting(
        "ratio.list", "list: file of comma-separated preserve ratios, one per convolution in forward order"
    )
    cp_selection: str = flag_of(PruningOptions, "selection")
    cp_lasso: bool = setting(True, "PocketFlow's switch: --nocp_lasso is --cp_selection magnitude")
    cp_shared_input: str = flag_of(PruningOptions, "shared_input")
    cp_metric: str = flag_of(PruningOptions, "metric")
    cp_depthwise_refit: bool = flag_of(PruningOptions, "depthwise")
    cp_nb_batches: int = setting(
        60, "batches of training images that the statistics come from (at most one epoch)", accept=COUNT
    )
    cp_nb_points_per_layer: int = flag_of(PruningOptions, "points_per_layer")
    cp_quadruple: bool = setting(False, "keep multiples of 4 channels")
    cp_channel_multiple: int = flag_of(PruningOptions, "channel_multiple")
    cp_list_group: int = setting(
        1000,
        "prunable layers pruned at once; between groups the network is trained",
        accept=COUNT,
        argument="group_size",
    )
    cp_finetune: bool = setting(
        False, "between groups train briefly, by Adam, and not for the full schedule x --nb_epochs_rat"
    )
    cp_retrain: bool = setting(False, "between groups train for the full schedule even with --cp_finetune")
    cp_lrn_rate_ft: float = setting(1e-4, "learning rate of --cp_finetune", accept=POSITIVE)
    cp_nb_iters_ft_ratio: float = setting(0.2, "share of the full schedule that --cp_finetune takes", accept=SHARE)
    cp_bn_reestimate: bool = setting(
        False, "after pruning, measure the batch-norm statistics again on the calibration images"
    )
    cp_block_steps: int = setting(
        0,
        "after pruning, Adam steps for each block towards the dense block's outputs on the calibration "
        "images, without labels (a few hundred; 0: none)",
        accept=COUNT_OR_ZERO,
    )
    cp_block_lrn_rate: float = setting(1e-3, "learning rate of --cp_block_steps", accept=POSITIVE)
    cp_recover_epochs: float = setting(
        0.0,
        "after pruning and --cp_block_steps, epochs in which the whole network imitates the dense one on the augmented "
        "training images, without labels; it ends with the best state on held-out images (0: none)",
        accept=NOT_NEGATIVE,
    )
    cp_recover_lrn_rate: float = setting(1e-3, "learning rate of --cp_recover_epochs (Adam)", accept=POSITIVE)
    cp_cache_gb: float = flag_of(PruningOptions, "cache_gb")
    cp_moments_gb: float = flag_of(PruningOptions, "moments_gb")

    @property
    def selection(self) -> str:
        """The selection that is used. PocketFlow's --nocp_lasso replaces the Lasso by weight magnitude."""
        return "magnitude" if self.cp_selection == "lasso" and not self.cp_lasso else self.cp_selection

    @property
    def channel_multiple(self) -> int:
        """The multiple that is used. With --cp_quadruple it is a multiple of 4 as well."""
        return math.lcm(self.cp_channel_multiple, 4) if self.cp_quadruple else self.cp_channel_multiple
