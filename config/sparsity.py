"""The settings of --learner sparse: masks on single weights.

Defaults and accepted values are those of the engine's rules, schedules and policies, but for the criterion: the closed
form is the default start.
"""

from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, POSITIVE, SHARE, Interval
from pocketprune.compression.schedules import SCHEDULES, Schedule
from pocketprune.numerics.projections import SETS
from pocketprune.numerics.weight_patterns import UNSTRUCTURED
from pocketprune.sparsity.admm import AdmmSettings
from pocketprune.sparsity.auto_compress import AutoCompressSettings
from pocketprune.sparsity.policy import CRITERIA, KINDS, RANKINGS, SparsityPolicy, WeightRule

METHODS = ("level", "admm", "lottery")
BY_NAME = tuple(name for name in SCHEDULES if name != "multi_step")


@dataclass(frozen=True)
class SparsityConfig(Concern):
    """The settings of fine-grained pruning."""

    title = "Sparsity (--learner sparse)"

    sp_method: str = setting(
        "level",
        "level (masks by the schedule), admm (trained towards sparse weights, then masked) or lottery (rounds of "
        "pruning, each from the rewound weights)",
        accept=METHODS,
    )
    sp_level: float = setting(
        Schedule.target, "share of weights that is masked in the end", accept=FRACTION, argument="weights.target"
    )
    sp_pattern: str = setting(
        UNSTRUCTURED,
        "what is masked together: unstructured, blocks of outputs x inputs such as 4x1, or n:m such as 2:4 (of 4 "
        "neighbouring inputs 2 stay)",
        argument="weights.pattern",
    )
    sp_criterion: str = setting(
        "obs",
        "what is masked first: the least magnitude; obs, what costs a layer's output least once the others are "
        "refitted in closed form (lottery: magnitude); or random",
        accept=CRITERIA,
        argument="weights.criterion",
    )
    sp_ranking: str = setting(
        WeightRule.ranking,
        "local (every layer loses the same share), global (the least of all layers), sensitivity (weights below "
        "--sp_sensitivity standard deviations of their layer) or splicing (masked below --sp_splice_low times a "
        "threshold, back from --sp_splice_high times it on; needs --sp_mask live)",
        accept=RANKINGS,
        argument="weights.ranking",
    )
    sp_sensitivity: float = setting(
        WeightRule.sensitivity, "standard deviations below which weights are masked (splicing: above the mean size)",
        accept=POSITIVE, argument="weights.sensitivity",
    )  # fmt: skip
    sp_splice_low: float = setting(
        WeightRule.low, "splicing: share of the threshold below which weights are masked", accept=POSITIVE,
        argument="weights.low",
    )  # fmt: skip
    sp_splice_high: float = setting(
        WeightRule.high, "splicing: share of the threshold from which on they come back", accept=POSITIVE,
        argument="weights.high",
    )  # fmt: skip
    sp_schedule: str = setting(
        "one_shot",
        f"how the level rises over the epochs: {', '.join(BY_NAME)}",
        accept=BY_NAME,
        argument="weights.schedule",
    )
    sp_level_init: float = setting(
        Schedule.init, "level when the schedule starts", accept=FRACTION, argument="weights.init"
    )
    sp_warmup_epochs: int = setting(
        Schedule.start, "epochs before the schedule starts", accept=COUNT_OR_ZERO, argument="weights.start"
    )
    sp_ramp_epochs: int | None = setting(
        None, "epochs in which the level rises; its own: three quarters of those after the warm-up", accept=COUNT,
        argument="weights.steps",
    )  # fmt: skip
    sp_mask: str = setting(
        SparsityPolicy.mask,
        "hard (masked weights are erased), soft (they keep their numbers and may come back) or live (they are also "
        "trained on)",
        accept=KINDS,
        argument="weights.mask",
    )
    sp_ignore: str = setting(
        "",
        "layers to be left alone: names, with wildcards, or types of modules, separated by commas",
        argument="weights.ignore",
    )
    sp_nb_batches: int = setting(
        16, "batches of training images that the closed form looks at (at most one epoch)", accept=COUNT
    )
    sp_admm_set: str = setting(
        "weights",
        "admm: what is to become zero: weights (in --sp_pattern), whole filters or whole input channels",
        accept=tuple(SETS),
    )
    sp_admm_share: float = setting(
        0.6, "admm: share of the epochs before the weights are masked", accept=Interval(0, 1, True, True)
    )
    sp_admm_rounds: int = flag_of(AdmmSettings, "rounds", argument="admm.rounds")
    sp_rho: float = flag_of(AdmmSettings, "rho", argument="admm.rho")
    sp_rho_growth: float = flag_of(AdmmSettings, "rho_growth", argument="admm.rho_growth")
    sp_rounds: int = setting(
        5, "lottery: rounds, each of a whole training; round k masks 1 - (1 - level)^(k/rounds)", accept=COUNT
    )
    sp_rewind_epoch: int = setting(
        0, "lottery: epoch of the dense training to whose weights tickets return; 0: those before it",
        accept=COUNT_OR_ZERO, argument="rewind_epoch",
    )  # fmt: skip
    sp_rewind: bool = setting(True, "lottery: whether weights return; false goes on from the trained ones")
    sp_random_ticket: bool = setting(False, "lottery: also train a random ticket in the last round, as a control")


@dataclass(frozen=True)
class WeightSparseConfig(Concern):
    """The settings of PocketFlow's weight-sparse learner."""

    title = "PocketFlow's sparsity (--learner weight-sparse)"

    ws_prune_ratio: float = setting(
        0.75, "share of weights that is masked in the end", accept=FRACTION, argument="budget.level"
    )
    ws_prune_ratio_prtl: str = setting(
        "optimal",
        "how it is split over the layers: uniform, heurist (in proportion to the logarithm of their sizes) or optimal "
        "(searched; weights are refitted in closed form for each roll-out)",
        accept=("uniform", "heurist", "optimal"),
    )
    ws_search: str = setting("dp", "optimal: the search", accept=("dp", "ddpg", "anneal", "netadapt", "random"))
    ws_nb_rlouts: int = setting(200, "optimal: roll-outs of the search", accept=COUNT)
    ws_nb_rlouts_min: int = setting(50, "optimal: random roll-outs before the agent of ddpg acts", accept=COUNT)
    ws_nb_iters_feval: int = setting(25, "optimal: validation batches that a roll-out is scored on", accept=COUNT)
    ws_prune_ratio_exp: float = setting(3.0, "exponent of the ramp", accept=POSITIVE)
    ws_iter_ratio_beg: float = setting(0.1, "share of the training when the ramp begins", accept=FRACTION)
    ws_iter_ratio_end: float = setting(0.5, "share of the training when it ends", accept=SHARE, argument="ramp.end")
    ws_mask_update_step: int = setting(500, "training steps between two choices of masks", accept=COUNT)


@dataclass(frozen=True)
class AutoCompressConfig(Concern):
    """The settings of AutoCompress; those of ADMM are --sp_rho, --sp_rho_growth and --sp_admm_rounds."""

    title = "AutoCompress (--learner auto-compress)"

    ac_preserve_ratio: float = setting(0.5, "share of the MACs that stays", accept=SHARE, argument="auto.share")
    ac_rounds: int = flag_of(AutoCompressSettings, "rounds", argument="auto.rounds")
    ac_search: str = flag_of(AutoCompressSettings, "search", argument="auto.search")
    ac_search_start: str = flag_of(AutoCompressSettings, "start", argument="auto.start")
    ac_nb_rlouts: int = flag_of(AutoCompressSettings, "nb_rlouts", argument="auto.nb_rlouts")
    ac_selection: str = flag_of(AutoCompressSettings, "selection", argument="auto.selection")
    ac_admm_share: float = setting(
        0.6, "share of the epochs that ADMM takes, divided over the rounds", accept=Interval(0, 1, True, True)
    )
