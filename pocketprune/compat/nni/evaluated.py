"""NNI's pruners of v2 and v3 that an evaluator trains for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pocketprune.compat.nni import one_shot
from pocketprune.compat.nni.evaluator import TorchEvaluator, asks_dependency
from pocketprune.compat.nni.pruner import Masks
from pocketprune.graph.tracing import ExampleInputs

Config = Sequence[Mapping[str, Any]]
Result = tuple[nn.Module, Masks]


class _EvaluatedPruner(one_shot.ObservingPruner):
    """A pruner that looks on while an evaluator trains.

    Args:
        model, config_list: as for `Pruner`.
        evaluator: has the training.
        training_steps: batches that are looked at.
        activation: "relu", "relu6" or "gelu".
        mode: "normal" or "dependency_aware".
        dummy_input: an input; the evaluator's by default.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        evaluator: TorchEvaluator,
        training_steps: int = 1,
        activation: str = "relu",
        mode: str = "normal",
        dummy_input: ExampleInputs | None = None,
    ) -> None:
        super().__init__(
            model,
            config_list,
            evaluator.optimizers,
            evaluator.training_func,
            evaluator.criterion,
            activation,
            training_steps,
            dependency_aware=asks_dependency(mode, ("normal", "global", "dependency_aware")),
            dummy_input=evaluator.dummy_input if dummy_input is None else dummy_input,
        )

    def compress(self) -> Result:  # type: ignore[override]
        """Train, then mask. Return the network and its masks."""
        return super().compress(), self.masks


class ActivationAPoZRankPruner(_EvaluatedPruner):
    """Masks the filters whose activations are zero most often."""

    criterion = "apoz"


class ActivationMeanRankPruner(_EvaluatedPruner):
    """Masks the filters with the smallest mean activations."""

    criterion = "mean_activation"


class TaylorFOWeightPruner(_EvaluatedPruner):
    """Masks the filters whose removal changes the loss least, to first order."""

    criterion = "taylor"
    kind = "gradients"


TaylorPruner = TaylorFOWeightPruner


class SlimPruner(one_shot.SlimPruner):
    """Masks the smallest batch-norm scales of all layers.

    Args:
        model, config_list: as for `Pruner`.
        evaluator: has the training; None: the scales are taken as they are.
        training_epochs: epochs of it.
        scale: how strongly the scales are pulled to 0.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        evaluator: TorchEvaluator | None = None,
        training_epochs: int = 1,
        scale: float = 1e-4,
    ) -> None:
        given = evaluator or TorchEvaluator()
        super().__init__(
            model, config_list, given.optimizers, given.training_func, given.criterion, training_epochs, scale
        )

    def compress(self) -> Result:  # type: ignore[override]
        """Train with the penalty, then mask. Return the network and its masks."""
        return super().compress(), self.masks
