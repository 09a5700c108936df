"""The searches' settings. Names are the flags' without `cp_` or `ddpg_`; defaults are PocketFlow's where it
has one."""

from __future__ import annotations

from dataclasses import dataclass, field

from pocketprune.common.errors import UserError

NOISE_TYPES = ("param", "action")
NOISE_PROTOCOLS = ("tdecy", "adapt")
REWARD_POLICIES = ("accuracy", "flops", "loss")


def one_of(flag: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise UserError(f"{flag}: {value!r} is not accepted; one of: {', '.join(accepted)}")


def at_least(flag: str, value: float, lowest: float) -> None:
    if not value >= lowest:
        raise UserError(f"{flag}: {value!r} is not accepted; at least {lowest:g}")


def within(flag: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise UserError(f"{flag}: {value!r} is not accepted; {lowest:g} to {highest:g}")


@dataclass(frozen=True)
class DdpgSettings:
    """The agent's `ddpg_*` flags."""

    actor_depth: int = 2  # hidden layers
    actor_width: int = 64  # units in each
    critic_depth: int = 2
    critic_width: int = 64
    tau: float = 0.01  # share of the network that enters its target at an update
    gamma: float = 0.9  # discount of later rewards
    lrn_rate: float = 1e-3  # of both networks
    loss_w_dcy: float = 0.0  # weight decay of both networks
    record_step: int = 1  # store every n-th transition
    batch_size: int = 64  # transitions in an update
    enbl_bsln_func: bool = True  # subtract the moving average of rewards
    bsln_decy_rate: float = 0.95  # its decay per roll-out
    noise_type: str = "param"  # param: perturbed actor weights; action: truncated normal around the action
    noise_prtl: str = "tdecy"  # tdecy: geometric decay; adapt: steered to noise_dst_finl
    noise_std_init: float = 1.0
    noise_std_finl: float = 1e-5  # reached at the last roll-out (tdecy)
    noise_dst_finl: float = 0.01  # distance between clean and noisy actions (adapt)
    noise_adpt_rat: float = 1.03  # change of the deviation per roll-out (adapt)
    nb_updates: int = 4  # updates per stored step (PocketFlow: 1); they cost far less than a roll-out
    rms_eps: float = 1e-4  # least variance by which rewards are scaled

    def check(self) -> None:
        """Raises UserError for a value no agent can work with."""
        for name in (
            "actor_depth",
            "actor_width",
            "critic_depth",
            "critic_width",
            "record_step",
            "nb_updates",
            "batch_size",
        ):
            at_least(f"ddpg_{name}", getattr(self, name), 1)
        for name in ("tau", "gamma", "bsln_decy_rate"):
            within(f"ddpg_{name}", getattr(self, name), 0.0, 1.0)
        for name in ("lrn_rate", "noise_std_init", "noise_std_finl", "noise_dst_finl", "rms_eps"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"ddpg_{name}: {getattr(self, name)!r} is not accepted; more than 0")
        at_least("ddpg_noise_adpt_rat", self.noise_adpt_rat, 1.0)
        at_least("ddpg_loss_w_dcy", self.loss_w_dcy, 0.0)
        one_of("ddpg_noise_type", self.noise_type, NOISE_TYPES)
        one_of("ddpg_noise_prtl", self.noise_prtl, NOISE_PROTOCOLS)


@dataclass(frozen=True)
class SearchSettings:
    """What the searches share. `nb_rlouts` bounds the scored networks of every searcher but `uniform`.

    `start`: values to begin from, where a searcher begins somewhere (ddpg, anneal); () means uniform.
    `parallel`: roll-outs that the agent plans before it learns from them, one per process that scores.
    """

    nb_rlouts: int = 200
    nb_rlouts_min: int = 50  # ddpg: random roll-outs before the agent acts
    reward_policy: str = "accuracy"  # accuracy | flops: -error ln cost, the budget a ceiling | loss: -loss
    noise_tolerance: float = 0.15  # flops: errors below this are all alike
    probes: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)  # of a full value, where sensitivities are measured
    swaps: int = 60  # dp: jointly scored exchanges between variables
    temperature: float = 0.02  # anneal: reward difference accepted freely at the start
    temperature_finl: float = 5e-4  # anneal: and at the end
    start: tuple[int, ...] = ()
    parallel: int = 1
    ddpg: DdpgSettings = field(default_factory=DdpgSettings)

    def check(self) -> None:
        """Raises UserError for a value outside its range, naming the flag."""
        at_least("cp_nb_rlouts", self.nb_rlouts, 1)
        at_least("cp_nb_rlouts_min", self.nb_rlouts_min, 1)
        one_of("cp_reward_policy", self.reward_policy, REWARD_POLICIES)
        within("cp_noise_tolerance", self.noise_tolerance, 0.0, 1.0)
        if not self.probes:
            raise UserError("cp_probes: () is not accepted; at least one share between 0 and 1")
        for share in self.probes:
            within("cp_probes", share, 0.0, 1.0)
        at_least("cp_swaps", self.swaps, 0)
        if not 0.0 < self.temperature_finl <= self.temperature:
            raise UserError(
                f"cp_temperature_finl: {self.temperature_finl!r} is not accepted; more than 0, "
                f"at most cp_temperature ({self.temperature!r})"
            )
        at_least("parallel", self.parallel, 1)
        self.ddpg.check()
