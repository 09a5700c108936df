"""The settings of --learner filter: one rule for all channel groups, or a file with a rule for each part of a network.

Defaults and accepted values are those of the engine's rules, schedules and policies.
"""

from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, SHARE_OR_ZERO
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import SCHEDULES, Schedule

REFITS = ("none", "removal", "steps")


@dataclass(frozen=True)
class FilterPruningConfig(Concern):
    """The settings of filter pruning."""

    title = "Filter pruning (--learner filter)"

    fp_level: float = flag_of(
        Schedule, "target", argument="policy.target",
        teach="share that is masked when the schedule ends, see --fp_share_of",
    )  # fmt: skip
    fp_share_of: str = flag_of(
        Rule,
        "share_of",
        argument="policy.share_of",
        teach="what the level is a share of: channels, or the network's macs, params (parameters) or latency "
        "(milliseconds of a batch of --latency_batch images, measured layer by layer on this machine)",
    )
    fp_criterion: str = flag_of(Rule, "criterion", argument="policy.criterion")
    fp_side: str = flag_of(Rule, "side", argument="policy.side")
    fp_aggregate: str = flag_of(Rule, "aggregate", argument="policy.aggregate")
    fp_ranking: str = flag_of(Rule, "ranking", argument="policy.ranking")
    fp_schedule: str = setting(
        Schedule.name,
        f"how the level rises over the epochs: {', '.join(name for name in SCHEDULES if name != 'multi_step')}; "
        "multi_step takes a --fp_policy",
        accept=tuple(name for name in SCHEDULES if name != "multi_step"),
        argument="policy.schedule",
    )
    fp_level_init: float = flag_of(Schedule, "init", argument="policy.init")
    fp_warmup_epochs: int = flag_of(
        Schedule, "start", argument="policy.start", teach="epochs before the schedule starts"
    )
    fp_ramp_epochs: int | None = setting(
        None,
        "epochs in which the level rises; its own: three quarters of those after the warm-up",
        accept=COUNT,
        argument="policy.steps",
    )
    fp_freeze_epoch: int | None = flag_of(
        Schedule, "freeze", argument="policy.freeze",
        teach="epoch from which masks do not change any more; its own: the one after the ramp",
    )  # fmt: skip
    fp_mask: str = flag_of(Policy, "mask", argument="policy.mask")
    fp_regulariser: str = flag_of(Rule, "regulariser", argument="policy.regulariser")
    fp_strength: float = flag_of(Rule, "strength", argument="policy.strength")
    fp_multiple: int = flag_of(Policy, "multiple", argument="policy.multiple")
    fp_allow_inexact: bool = flag_of(Policy, "allow_inexact", argument="policy.allow_inexact")
    fp_ignore: str = setting(
        "",
        "channel groups to be left alone: names of layers that write them, with wildcards, or types of modules, "
        "separated by commas",
        argument="policy.ignore",
    )
    fp_policy: str = setting(
        "",
        "a .json or .yaml file that says all of the above, for each part of the network; --exec_mode layers writes a "
        "template",
        argument="policy",
    )
    fp_max_accuracy_drop: float | None = setting(
        None,
        "look for the largest level at which the validation accuracy is at most this much below the dense network's "
        "(0.01: one point), from --fp_level on, each level trained like the first; none: --fp_level is the level",
        accept=FRACTION,
        argument="max_accuracy_drop",
    )
    compress: str = setting(
        "",
        "a Distiller schedule (.yaml) that says all of the above, the learning rates and when channels are removed",
        argument="compress",
    )
    fp_nb_batches: int = setting(
        16, "batches of training images that criteria and the refit look at (at most one epoch)", accept=COUNT
    )
    fp_generations: int = setting(
        100, "learned ranking: networks that the evolution scores on the validation images", accept=COUNT
    )
    fp_refit: str = setting(
        "none",
        "refit the layers in closed form, without labels: removal (once, kept where that lowers the loss on the "
        "validation images; for masks that came late, as with --fp_tune_share 1) or steps (whenever masks change)",
        accept=REFITS,
    )
    fp_bn_images: int = setting(
        2000,
        "training images that batch-norm statistics are taken from before the removal; 0: they stay. Fewer than 256 "
        "and --fp_tune_share 1: they are the dense network's, shifted by what the masks change on these images",
        accept=COUNT_OR_ZERO,
    )  # fmt: skip
    fp_tune_share: float = setting(
        0.0,
        "share of the training that comes after the removal; 1 masks and removes at once, whatever the schedule",
        accept=SHARE_OR_ZERO,
    )
    quant_while_masking: bool = setting(
        False, "quantisers in the network already while it is trained with masks, as the flags of quantisation say"
    )
