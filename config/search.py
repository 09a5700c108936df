"""The settings of --cp_prune_option auto: those of the search, of its budget and of the ddpg agent.

Names and defaults are PocketFlow's, where it has them.
"""

from dataclasses import dataclass

from config.settings import Concern, flag_of, flags_of, setting
from pocketprune.common.options import COUNT
from pocketprune.search import SEARCHES, Budget, DdpgSettings, SearchSettings


@dataclass(frozen=True)
class SearchConfig(Concern):
    """The settings of the search for preserve ratios."""

    title = "Search for preserve ratios (--cp_prune_option auto)"

    cp_search: str = setting(
        "dp",
        "dp: allocation by measured sensitivity, then jointly scored exchanges; curvature: allocation by sensitivities "
        "that a backward pass gives, in one roll-out; ddpg: PocketFlow's reinforcement learning; anneal, netadapt, "
        "sensitivity, random (best of many) and uniform (one ratio) to compare",
        accept=tuple(SEARCHES),
        argument="method",
    )
    cp_preserve_ratio: float = flag_of(Budget, "share", argument="budget.share")
    cp_budget: str = setting(
        Budget.kind,
        "the cost that --cp_preserve_ratio bounds: macs, params (parameters) or latency (milliseconds of a batch "
        "of --latency_batch images, measured layer by layer on this machine)",
        accept=("macs", "params", "latency"),
        argument="budget.kind",
    )
    cp_nb_rlouts: int = flag_of(SearchSettings, "nb_rlouts")
    cp_nb_rlouts_min: int = flag_of(SearchSettings, "nb_rlouts_min")
    cp_reward_policy: str = flag_of(SearchSettings, "reward_policy")
    cp_noise_tolerance: float = flag_of(SearchSettings, "noise_tolerance")
    cp_nb_smpls_search: int = setting(
        2000,
        "images of the validation split that score a roll-out (at most all of them)",
        accept=COUNT,
        argument="held_out",
    )
    cp_search_start: str = setting(
        "uniform",
        "ddpg, anneal: where to begin; dp runs that search first",
        accept=("uniform", "dp"),
        argument="start",
    )


DdpgConfig = flags_of(DdpgSettings, "DdpgConfig", "Reinforcement learning (--cp_search ddpg)", prefix="ddpg_")
