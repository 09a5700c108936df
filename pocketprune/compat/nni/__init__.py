"""NNI's pruners under their names of v1: `compress` returns the network. Those of v2 and v3 are in `v2`."""

from pocketprune.compat.nni.agp import AGPPruner
from pocketprune.compat.nni.amc import AMCPruner
from pocketprune.compat.nni.counting import count_flops_params
from pocketprune.compat.nni.one_shot import (
    ActivationAPoZRankFilterPruner,
    ActivationMeanRankFilterPruner,
    FPGMPruner,
    L1FilterPruner,
    L2FilterPruner,
    LevelPruner,
    SlimPruner,
    TaylorFOWeightFilterPruner,
)
from pocketprune.compat.nni.searching import NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner
from pocketprune.compat.nni.sensitivity import SensitivityAnalysis
from pocketprune.compat.nni.sparse import ADMMPruner, AutoCompressPruner, LotteryTicketPruner
from pocketprune.compat.nni.speedup import ModelSpeedup, apply_compression_results
from pocketprune.compat.nni.units import ChannelDependency

__all__ = [
    "ADMMPruner",
    "AGPPruner",
    "AMCPruner",
    "ActivationAPoZRankFilterPruner",
    "ActivationMeanRankFilterPruner",
    "AutoCompressPruner",
    "ChannelDependency",
    "FPGMPruner",
    "L1FilterPruner",
    "L2FilterPruner",
    "LevelPruner",
    "LotteryTicketPruner",
    "ModelSpeedup",
    "NetAdaptPruner",
    "SensitivityAnalysis",
    "SensitivityPruner",
    "SimulatedAnnealingPruner",
    "SlimPruner",
    "TaylorFOWeightFilterPruner",
    "apply_compression_results",
    "count_flops_params",
]
