"""The settings of PocketFlow's discrimination-aware channel pruning. Names and defaults are its own."""

from dataclasses import dataclass

from config.settings import Concern, setting
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, POSITIVE


@dataclass(frozen=True)
class DiscriminatingConfig(Concern):
    """The settings of --learner dis-chn-pruned."""

    title = "Discrimination-aware channel pruning (--learner dis-chn-pruned)"

    dcp_prune_ratio: float = setting(0.5, "share of each layer's input channels that is removed", accept=FRACTION)
    dcp_nb_stages: int = setting(
        3, "parts of the network, each with an auxiliary classifier", accept=COUNT, argument="nb_parts"
    )
    dcp_lrn_rate_adam: float = setting(1e-3, "learning rate while channels are chosen, of Adam", accept=POSITIVE)
    dcp_nb_iters_block: int = setting(
        10000, "training steps of the network before the channels of a part are chosen", accept=COUNT_OR_ZERO
    )
    dcp_nb_iters_layer: int = setting(500, "training steps of a layer after each channel", accept=COUNT_OR_ZERO)
