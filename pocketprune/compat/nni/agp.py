"""NNI's AGP: the share rises by a cubic curve around a base pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compat.nni.collecting import Trainer, run_trainer
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
from pocketprune.compat.nni.pruner import BuiltOn, Pruner
from pocketprune.compression.schedules import Schedule

BASES: dict[str, type[Pruner]] = {
    "level": LevelPruner,
    "slim": SlimPruner,
    "l1": L1FilterPruner,
    "l2": L2FilterPruner,
    "fpgm": FPGMPruner,
    "taylorfo": TaylorFOWeightFilterPruner,
    "taylor": TaylorFOWeightFilterPruner,
    "apoz": ActivationAPoZRankFilterPruner,
    "mean_activation": ActivationMeanRankFilterPruner,
}
"""The names of pruning algorithms that others build on."""


def base_pruner(
    name: str, model: nn.Module, config_list: Sequence[Mapping[str, Any]], optimizer: Any = None, **more: Any
) -> Pruner:
    """Return the pruner that another one builds on.

    Raises:
        UserError: an unknown name, or what the pruner refuses.
    """
    if name not in BASES:
        raise UserError(f"'{name}' given{nearest(name, BASES)}", argument="pruning_algorithm")
    return BASES[name](model, config_list, optimizer, **more)


class AGPPruner(BuiltOn):
    """Prunes bit by bit by the curve of Zhu and Gupta (2017).

    Up to NNI 2.2 the config list has initial_sparsity, final_sparsity, start_epoch, end_epoch and frequency, and one's
    own loop calls `update_epoch`. From 2.3 on it has sparsity, and `compress` trains.

    Args:
        model, config_list, optimizer: as for `Pruner`.
        trainer: the training: (model, optimizer, criterion[, epoch]).
        criterion: the loss that it is given.
        num_iterations: times at which the share rises, with a trainer.
        epochs_per_iteration: epochs of training after each.
        pruning_algorithm: the base pruner, a key of `BASES`.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        optimizer: Any = None,
        trainer: Trainer | None = None,
        criterion: Any = None,
        num_iterations: int = 10,
        epochs_per_iteration: int = 1,
        pruning_algorithm: str = "level",
        **more: Any,
    ) -> None:
        observing = {"trainer": trainer, "criterion": criterion} if pruning_algorithm in _TRAINED else {}
        self._base = base_pruner(pruning_algorithm, model, config_list, optimizer, **observing, **more)
        self.bound_model, self._optimizer, self._trainer, self._loss = model, optimizer, trainer, criterion
        self._iterations, self._epochs = num_iterations, epochs_per_iteration
        self._schedules = {
            number: schedule_of(entry, num_iterations)
            for number, entry in enumerate(config_list)
            if not entry.get("exclude")
        }

    def compress(self) -> nn.Module:
        """Prune and train in turns; without a trainer, leave that to `update_epoch`. Return the network."""
        if self._trainer is not None:
            for iteration in range(self._iterations):
                self._mask(iteration)
                for epoch in range(self._epochs):
                    number = iteration * self._epochs + epoch
                    run_trainer(self._trainer, self.bound_model, self._optimizer, self._loss, number)
        return self.bound_model

    def update_epoch(self, epoch: int) -> None:
        """Mask what the curve says at the start of an epoch, counted from 0."""
        if any(schedule.changes(epoch) for schedule in self._schedules.values()):
            self._mask(epoch)

    def _mask(self, time: int) -> None:
        shares = {number: schedule.level(time) for number, schedule in self._schedules.items()}
        if isinstance(self._base, _TRAINED_TYPES):
            self._base.observe()
        self._base.update_mask(shares)


_TRAINED = ("taylorfo", "taylor", "apoz", "mean_activation", "slim")
_TRAINED_TYPES = (ActivationAPoZRankFilterPruner, ActivationMeanRankFilterPruner, TaylorFOWeightFilterPruner)


def schedule_of(entry: Mapping[str, Any], iterations: int) -> Schedule:
    """Return the curve of one entry of a config list."""
    if "final_sparsity" not in entry:
        share = next(
            entry[key] for key in ("sparsity", "sparsity_per_layer", "total_sparsity", "sparse_ratio") if key in entry
        )
        return Schedule(name="agp", target=float(share), steps=iterations)
    start, end = int(entry.get("start_epoch", 0)), int(entry.get("end_epoch", 1))
    return Schedule(
        name="agp",
        init=float(entry.get("initial_sparsity", 0.0)),
        target=float(entry["final_sparsity"]),
        start=start,
        steps=max(1, end - start),
        frequency=int(entry.get("frequency", 1)),
    )
