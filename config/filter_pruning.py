"""The settings of --learner filter: one rule for all channel groups, or a file with a rule for each part of a network.

Defaults and accepted values are those of the engine's rules, schedules and policies.
"""

from dataclasses import dataclass

from config.settings import Concern, setting
from pocketprune.common.options import COUNT, COUNT_OR_ZERO, FRACTION, NOT_NEGATIVE, SHARE_OR_ZERO
from pocketprune.compression.masks import KINDS
from pocketprune.compression.policy import RANKINGS, SIDES, Policy, Rule
from pocketprune.compression.questions import PARTS
from pocketprune.compression.regularisers import REGULARISERS
from pocketprune.compression.schedules import SCHEDULES, Schedule
from pocketprune.numerics.criteria import AGGREGATES

REFITS = ("none", "removal", "steps")


@dataclass(frozen=True)
class FilterPruningConfig(Concern):
    """The settings of filter pruning."""

    title = "Filter pruning (--learner filter)"

    fp_level: float = setting(
        Schedule.target, "share that is masked when the schedule ends, see --fp_share_of", accept=FRACTION,
        argument="policy.target",
    )  # fmt: skip
    fp_share_of: str = setting(
        Rule.share_of,
        "what the level is a share of: channels, or the network's macs or params (parameters)",
        accept=("channels", "macs", "params"),
        argument="policy.share_of",
    )
    fp_criterion: str = setting(
        Rule.criterion, f"what scores channels: {', '.join(PARTS)}", accept=tuple(PARTS), argument="policy.criterion"
    )
    fp_side: str = setting(
        Rule.side, "the weights that are scored: filters (write a channel) or channels (read it)", accept=SIDES,
        argument="policy.side",
    )  # fmt: skip
    fp_aggregate: str = setting(
        Rule.aggregate,
        "how the scores of several members of a channel group become one: sum, leader (the first decides), mean or max",
        accept=tuple(AGGREGATES),
        argument="policy.aggregate",
    )
    fp_ranking: str = setting(
        Rule.ranking,
        "group (every group loses the same share), global (the lowest scores of all groups go) or learned (global, "
        "each group's scores with a scale and a shift found by evolution)",
        accept=RANKINGS,
        argument="policy.ranking",
    )
    fp_schedule: str = setting(
        Schedule.name,
        f"how the level rises over the epochs: {', '.join(name for name in SCHEDULES if name != 'multi_step')}; "
        "multi_step takes a --fp_policy",
        accept=tuple(name for name in SCHEDULES if name != "multi_step"),
        argument="policy.schedule",
    )
    fp_level_init: float = setting(
        Schedule.init, "level when the schedule starts", accept=FRACTION, argument="policy.init"
    )
    fp_warmup_epochs: int = setting(
        Schedule.start, "epochs before the schedule starts", accept=COUNT_OR_ZERO, argument="policy.start"
    )
    fp_ramp_epochs: int | None = setting(
        None,
        "epochs in which the level rises; its own: three quarters of those after the warm-up",
        accept=COUNT,
        argument="policy.steps",
    )
    fp_freeze_epoch: int | None = setting(
        Schedule.freeze, "epoch from which masks do not change any more; its own: the one after the ramp",
        accept=COUNT_OR_ZERO, argument="policy.freeze",
    )  # fmt: skip
    fp_mask: str = setting(
        Policy.mask,
        "soft (the filters live on, and channels may come back until the masks freeze) or hard",
        accept=KINDS,
        argument="policy.mask",
    )
    fp_regulariser: str = setting(
        Rule.regulariser,
        "what makes channels small meanwhile: none, bn_scale (L1 on batch-norm scales), group_lasso or l1",
        accept=("none", *REGULARISERS),
        argument="policy.regulariser",
    )
    fp_strength: float = setting(
        Rule.strength, "what the regulariser is multiplied by", accept=NOT_NEGATIVE, argument="policy.strength"
    )
    fp_multiple: int = setting(
        Policy.multiple, "keep multiples of this many channels", accept=COUNT, argument="policy.multiple"
    )
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
        2000, "training images that batch-norm statistics are taken from before the removal; 0: they stay",
        accept=COUNT_OR_ZERO,
    )  # fmt: skip
    fp_tune_share: float = setting(
        0.0,
        "share of the training that comes after the removal; 1 masks and removes at once, whatever the schedule",
        accept=SHARE_OR_ZERO,
    )
