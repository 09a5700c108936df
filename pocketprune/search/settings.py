"""The settings of the searches. Names and defaults are PocketFlow's, where it has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pocketprune.common.errors import UserError
from pocketprune.common.options import (
    COUNT,
    COUNT_OR_ZERO,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE_OR_ZERO,
    Interval,
    check_option,
    check_options,
    option,
)
from pocketprune.search.reward import REWARDS

DEPTH, WIDTH = Interval(1, 100, whole=True), Interval(1, 65536, whole=True)


@dataclass(frozen=True)
class DdpgSettings:
    """The settings of the agent of the search `ddpg`."""

    actor_depth: int = option(2, "hidden layers of the actor", accept=DEPTH)
    actor_width: int = option(64, "units in each of them", accept=WIDTH)
    critic_depth: int = option(2, "hidden layers of the critic", accept=DEPTH)
    critic_width: int = option(64, "units in each of them", accept=WIDTH)
    tau: float = option(0.01, "share of a network that enters its target at an update", accept=SHARE_OR_ZERO)
    gamma: float = option(0.9, "discount of later rewards", accept=SHARE_OR_ZERO)
    lrn_rate: float = option(1e-3, "learning rate of both networks", accept=POSITIVE)
    loss_w_dcy: float = option(0.0, "weight decay of both networks", accept=NOT_NEGATIVE)
    record_step: int = option(1, "store every so many transitions", accept=COUNT)
    batch_size: int = option(64, "transitions in an update", accept=COUNT)
    enbl_bsln_func: bool = option(True, "subtract the moving average of the rewards")
    bsln_decy_rate: float = option(0.95, "its decay per roll-out", accept=FRACTION)
    noise_type: str = option(
        "param", "exploration: param (perturbs the actor's weights) or action", accept=("param", "action")
    )
    noise_prtl: str = option(
        "tdecy", "tdecy: noise decays over time; adapt: it is steered by its effect", accept=("tdecy", "adapt")
    )
    noise_std_init: float = option(1.0, "deviation of the noise at first", accept=POSITIVE)
    noise_std_finl: float = option(1e-5, "tdecy: and at the last roll-out", accept=POSITIVE)
    noise_dst_finl: float = option(0.01, "adapt: wanted change of the actions", accept=POSITIVE)
    noise_adpt_rat: float = option(1.03, "adapt: change of the deviation per roll-out", accept=Interval(1))
    nb_updates: int = option(4, "updates per stored step (PocketFlow: 1)", accept=COUNT)
    rms_eps: float = option(1e-4, "least variance by which rewards are scaled", accept=POSITIVE)


@dataclass(frozen=True)
class SearchSettings:
    """The settings that the searches share."""

    nb_rlouts: int = option(200, "roll-outs: networks that the search may score", accept=COUNT)
    nb_rlouts_min: int = option(50, "ddpg: random roll-outs before the agent acts", accept=COUNT)
    reward_policy: str = option(
        "divergence",
        "what the search maximises on the held-out images: divergence (minus that from the dense network's "
        "predictions, which takes no labels); accuracy; loss (minus the cross-entropy); flops (-error x ln cost, the "
        "budget only a ceiling)",
        accept=tuple(REWARDS),
    )
    noise_tolerance: float = option(0.15, "flops: errors below this count as this", accept=SHARE_OR_ZERO)
    probes: tuple[float, ...] = option((0.2, 0.4, 0.6, 0.8), "shares of a full value where sensitivities are measured")
    swaps: int = option(60, "dp: jointly scored exchanges between variables", accept=COUNT_OR_ZERO)
    temperature: float = option(
        0.02, "anneal: difference of rewards that is accepted freely at the start", accept=POSITIVE
    )
    temperature_finl: float = option(5e-4, "anneal: and at the end", accept=POSITIVE)
    start: tuple[int, ...] = option((), "ddpg, anneal: values to begin from; (): uniform ones")
    parallel: int = option(1, "networks scored at once; ddpg plans as many before it learns from them", accept=COUNT)
    ddpg: DdpgSettings = field(default_factory=DdpgSettings)

    def check(self) -> None:
        """Raise a UserError for a value that no search can work with."""
        check_options(self)
        check_options(self.ddpg, "ddpg.")
        if not self.probes:
            raise UserError("() given; expected one share or more", argument="probes")
        for share in self.probes:
            check_option("probes", share, SHARE_OR_ZERO)
        if self.temperature_finl > self.temperature:
            raise UserError(
                f"{self.temperature_finl!r} given; expected at most temperature ({self.temperature!r})",
                argument="temperature_finl",
            )
