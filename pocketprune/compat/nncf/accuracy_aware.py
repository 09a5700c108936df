"""Accuracy-aware training: a script's own functions, called until the accuracy or the level is what it should be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.config import NNCFConfig
from pocketprune.compat.nncf.controller import FilterPruningController
from pocketprune.compat.nncf.schema import CONFIG
from pocketprune.compat.nncf.stage import CompressionStage
from pocketprune.compression.level_search import LevelSearch, Progress, Trial, restore, search_level, snapshot

MODES = ("adaptive_compression_level", "early_exit")


@dataclass(frozen=True)
class TrainingLoopStatistics:
    """What a loop has come to; degradations are in units of the metric, and in percent of it."""

    uncompressed_accuracy: float
    compression_rate: float
    compressed_accuracy: float
    absolute_accuracy_degradation: float
    relative_accuracy_degradation: float
    accuracy_budget: float

    def to_str(self) -> str:
        """Return one line for each."""
        return "\n".join(f"{name.replace('_', ' ')}: {value:.4g}" for name, value in vars(self).items())


class AccuracyAwareTrainingLoop:
    """Trains a network until it is accurate enough, or looks for the largest level at which it still is.

    Args:
        nncf_config: with the section `accuracy_aware_training`.
        compression_ctrl: of the network.
        uncompressed_model_accuracy: what the drop counts from, in the units of `validate_fn`.
        lr_updates_needed: whether the learning-rate scheduler is stepped after each epoch.

    Attributes:
        minimal_tolerable_accuracy: what counts as accurate enough.
        epoch: epochs trained.
    """

    def __init__(
        self,
        nncf_config: NNCFConfig,
        compression_ctrl: FilterPruningController,
        uncompressed_model_accuracy: float,
        lr_updates_needed: bool = True,
    ) -> None:
        CONFIG(nncf_config, "")
        if "accuracy_aware_training" not in nncf_config:
            raise UserError(f'none given; {{"mode": "{MODES[0]}"}} is accepted', argument="accuracy_aware_training")
        section = nncf_config["accuracy_aware_training"]
        self._mode, self._params = section.get("mode", MODES[0]), section.get("params", {})
        self._ctrl, self._accuracy, self._updates = compression_ctrl, uncompressed_model_accuracy, lr_updates_needed
        self.minimal_tolerable_accuracy = uncompressed_model_accuracy - self._drop()
        self.epoch, self._score = 0, float("nan")

    def run(
        self,
        model: nn.Module,
        train_epoch_fn: Callable[..., Any],
        validate_fn: Callable[..., float],
        configure_optimizers_fn: Callable[[], tuple[Any, Any]] | None = None,
        dump_checkpoint_fn: Callable[..., Any] | None = None,
        log_dir: str | Path | None = None,
    ) -> nn.Module:
        """Train, and return the network.

        Args:
            model: the network of the controller, or a wrapper of it.
            train_epoch_fn: (controller, model, epoch=, optimizer=, lr_scheduler=) trains one epoch.
            validate_fn: (model, epoch=) -> the accuracy, higher is better.
            configure_optimizers_fn: () -> (optimizer, learning-rate scheduler), for each training anew.
            dump_checkpoint_fn: (model, controller, loop, folder) is called after each epoch.
            log_dir: the folder that it is given.
        """
        self._model, self._train, self._validate = model, train_epoch_fn, validate_fn
        self._configure, self._dump, self._folder = configure_optimizers_fn, dump_checkpoint_fn, log_dir or "runs"
        total = int(self._params.get("maximal_total_epochs", 10000))
        if self._mode == "early_exit":
            self._until_accurate(total)
            return model
        self._until_accurate(min(total, int(self._params.get("initial_training_phase_epochs", 5))))
        self._search(total)
        return model

    @property
    def statistics(self) -> TrainingLoopStatistics:
        """What the loop has come to."""
        drop = self._accuracy - self._score
        relative = 100 * drop / self._accuracy if self._accuracy else 0.0
        budget = self._score - self.minimal_tolerable_accuracy
        return TrainingLoopStatistics(self._accuracy, self._ctrl.compression_rate, self._score, drop, relative, budget)

    def _drop(self) -> float:
        """The largest drop, in units of the metric."""
        absolute = self._params.get("maximal_absolute_accuracy_degradation")
        if absolute is not None:
            return float(absolute)
        return 0.01 * float(self._params.get("maximal_relative_accuracy_degradation", 1.0)) * self._accuracy

    def _until_accurate(self, epochs: int) -> None:
        """Train by the schedule until the fully compressed network is accurate enough; end with the best such one."""
        self._restart(1.0)
        self._measure()
        best: tuple[float, dict[str, Any]] | None = None
        for _ in range(epochs + 1):
            if self._ctrl.compression_stage() == CompressionStage.FULLY_COMPRESSED:
                if best is None or self._score > best[0]:
                    best = (self._score, snapshot(self._ctrl.control))
                if self._score >= self.minimal_tolerable_accuracy:
                    return
            if self.epoch < epochs:
                self._epoch()
        if best is not None:
            self._score = best[0]
            restore(self._ctrl.control, best[1])

    def _search(self, total: int) -> None:
        """Look for the largest level."""
        ctrl, given = self._ctrl, self._params
        settings = LevelSearch(
            step=given.get("initial_compression_rate_step", 0.1),
            shrink=given.get("compression_rate_step_reduction_factor", 0.5),
            least_step=given.get("minimal_compression_rate_step", 0.025),
            most=min(0.95, ctrl.maximal_compression_rate),
        )
        begin = Trial(
            ctrl.compression_rate, settings.step, self._score, met=self._score >= self.minimal_tolerable_accuracy
        )
        ctrl.disable_scheduler()

        def train(trial: Trial) -> float | None:
            ctrl.pruning_level = ctrl.scheduler.target_level = trial.level
            self._restart(given.get("lr_reduction_factor", 0.5) ** settings.shrinks(trial.step))
            for _ in range(int(given.get("patience_epochs", 3))):
                if self.epoch >= total:
                    return None
                self._epoch()
                if self._score >= self.minimal_tolerable_accuracy:
                    break
            return self._score

        progress = Progress([begin], snapshot(ctrl.control))
        found = search_level(ctrl.control, train, self.minimal_tolerable_accuracy, settings, progress=progress).best
        if found is None:
            warnings.warn("no level was found at which the accuracy is kept; the last one stays", stacklevel=4)
            return
        self._score = found.score
        ctrl.pruning_level = ctrl.scheduler.target_level = found.level

    def _restart(self, factor: float) -> None:
        """Make the optimizer anew, its learning rates times a factor."""
        made: tuple[Any, Any] = (None, None) if self._configure is None else self._configure()
        self._optimizer, self._scheduler = made
        for group in self._optimizer.param_groups if self._optimizer is not None else ():
            group["lr"] *= factor
            group["initial_lr"] = group.get("initial_lr", group["lr"] / factor) * factor
        if hasattr(self._scheduler, "base_lrs"):
            self._scheduler.base_lrs = [rate * factor for rate in self._scheduler.base_lrs]

    def _epoch(self) -> None:
        """Train one epoch, and measure."""
        ctrl = self._ctrl
        ctrl.scheduler.epoch_step()
        self._train(ctrl, self._model, epoch=self.epoch, optimizer=self._optimizer, lr_scheduler=self._scheduler)
        self.epoch += 1
        self._measure()
        if self._dump is not None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            self._dump(self._model, ctrl, self, self._folder)
        if self._scheduler is not None and self._updates:
            self._scheduler.step()

    def _measure(self) -> None:
        self._score = float(self._validate(self._model, epoch=self.epoch))


def create_accuracy_aware_training_loop(
    nncf_config: NNCFConfig,
    compression_ctrl: FilterPruningController,
    uncompressed_model_accuracy: float,
    lr_updates_needed: bool = True,
) -> AccuracyAwareTrainingLoop:
    """Return the loop that a configuration asks for; the arguments are those of `AccuracyAwareTrainingLoop`."""
    return AccuracyAwareTrainingLoop(nncf_config, compression_ctrl, uncompressed_model_accuracy, lr_updates_needed)


def run_accuracy_aware(
    model: nn.Module,
    nncf_config: NNCFConfig,
    compression_ctrl: FilterPruningController,
    uncompressed_model_accuracy: float,
    train_epoch_fn: Callable[..., Any],
    validate_fn: Callable[..., float],
    configure_optimizers_fn: Callable[[], tuple[Any, Any]] | None = None,
) -> TrainingLoopStatistics:
    """Create the loop, run it, and return what it has come to; the arguments are those of the loop and its `run`."""
    loop = create_accuracy_aware_training_loop(nncf_config, compression_ctrl, uncompressed_model_accuracy)
    loop.run(model, train_epoch_fn, validate_fn, configure_optimizers_fn)
    return loop.statistics
