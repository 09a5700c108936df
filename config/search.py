"""The settings of --cp_prune_option auto: which search, under which budget, and the agent's own.

Names are PocketFlow's and so are the defaults, where it has them.
"""

from dataclasses import dataclass

from config.settings import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Concern, Interval, setting

SHARE_OR_ZERO = Interval(0, 1)


@dataclass(frozen=True)
class SearchConfig(Concern):
    """Search for preserve ratios (--cp_prune_option auto)"""

    cp_search: str = setting(
        "dp",
        "dp: allocation by measured sensitivity, then jointly scored exchanges; ddpg: PocketFlow's reinforcement "
        "learning; anneal, netadapt, sensitivity, random (best of many) and uniform (one ratio) to compare",
        accept=("dp", "ddpg", "anneal", "netadapt", "sensitivity", "random", "uniform"),
    )
    cp_preserve_ratio: float = setting(
        0.5, "share of the dense network's cost to keep, met within half a point", accept=SHARE
    )
    cp_budget: str = setting(
        "macs",
        "the cost that --cp_preserve_ratio bounds: macs, params (parameters) or latency (milliseconds of a batch "
        "of --latency_batch images, measured layer by layer on this machine)",
        accept=("macs", "params", "latency"),
    )
    cp_nb_rlouts: int = setting(200, "roll-outs: networks that the search may score", accept=COUNT)
    cp_nb_rlouts_min: int = setting(50, "ddpg: random roll-outs before the agent acts", accept=COUNT)
    cp_reward_policy: str = setting(
        "accuracy",
        "what the search maximises on the held-out images: accuracy; flops (-error x ln cost, the budget only a "
        "ceiling); loss (minus the cross-entropy)",
        accept=("accuracy", "flops", "loss"),
    )
    cp_noise_tolerance: float = setting(0.15, "flops: errors below this count as this", accept=SHARE_OR_ZERO)
    cp_nb_smpls_search: int = setting(
        2000, "images of the validation split that score a roll-out (at most all of them)", accept=COUNT
    )
    cp_search_start: str = setting(
        "uniform", "ddpg, anneal: where to begin; dp runs that search first", accept=("uniform", "dp")
    )


@dataclass(frozen=True)
class DdpgConfig(Concern):
    """Reinforcement learning (--cp_search ddpg)"""

    ddpg_actor_depth: int = setting(2, "hidden layers of the actor", accept=COUNT)
    ddpg_actor_width: int = setting(64, "units in each of them", accept=COUNT)
    ddpg_critic_depth: int = setting(2, "hidden layers of the critic", accept=COUNT)
    ddpg_critic_width: int = setting(64, "units in each of them", accept=COUNT)
    ddpg_tau: float = setting(0.01, "share of a network that enters its target at an update", accept=SHARE_OR_ZERO)
    ddpg_gamma: float = setting(0.9, "discount of later rewards", accept=SHARE_OR_ZERO)
    ddpg_lrn_rate: float = setting(1e-3, "learning rate of both networks", accept=POSITIVE)
    ddpg_loss_w_dcy: float = setting(0.0, "weight decay of both networks", accept=NOT_NEGATIVE)
    ddpg_record_step: int = setting(1, "store every so many transitions", accept=COUNT)
    ddpg_batch_size: int = setting(64, "transitions in an update", accept=COUNT)
    ddpg_enbl_bsln_func: bool = setting(True, "subtract the moving average of the rewards")
    ddpg_bsln_decy_rate: float = setting(0.95, "its decay per roll-out", accept=FRACTION)
    ddpg_noise_type: str = setting(
        "param", "exploration: param (perturbs the actor's weights) or action", accept=("param", "action")
    )
    ddpg_noise_prtl: str = setting(
        "tdecy", "tdecy: noise decays over time; adapt: it is steered by its effect", accept=("tdecy", "adapt")
    )
    ddpg_noise_std_init: float = setting(1.0, "deviation of the noise at first", accept=POSITIVE)
    ddpg_noise_std_finl: float = setting(1e-5, "tdecy: and at the last roll-out", accept=POSITIVE)
    ddpg_noise_dst_finl: float = setting(0.01, "adapt: wanted change of the actions", accept=POSITIVE)
    ddpg_noise_adpt_rat: float = setting(1.03, "adapt: change of the deviation per roll-out", accept=Interval(1))
    ddpg_nb_updates: int = setting(4, "updates per stored step (PocketFlow: 1)", accept=COUNT)
    ddpg_rms_eps: float = setting(1e-4, "least variance by which rewards are scaled", accept=POSITIVE)
