"""NNI's pruners as v2 and v3 have them: `compress` returns the network and its masks.

The names that both have are here with their later arguments. A config list with `sparse_ratio` is v3's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni import agp, one_shot, searching
from pocketprune.compat.nni.counting import count_flops_params
from pocketprune.compat.nni.evaluator import TorchEvaluator, trace
from pocketprune.compat.nni.pruner import Masks, Pruner
from pocketprune.compat.nni.speedup import ModelSpeedup
from pocketprune.compat.nni.units import ChannelDependency
from pocketprune.graph.tracing import ExampleInputs

__all__ = [
    "AGPPruner",
    "ActivationAPoZRankPruner",
    "ActivationMeanRankPruner",
    "ChannelDependency",
    "FPGMPruner",
    "L1NormPruner",
    "L2NormPruner",
    "LevelPruner",
    "ModelSpeedup",
    "SimulatedAnnealingPruner",
    "SlimPruner",
    "TaylorFOWeightPruner",
    "TaylorPruner",
    "TorchEvaluator",
    "count_flops_params",
    "trace",
]

Config = Sequence[Mapping[str, Any]]
Result = tuple[nn.Module, Masks]


def _asks_dependency(mode: str, accepted: Sequence[str] = ("normal", "dependency_aware")) -> bool:
    if mode not in accepted:
        raise UserError(f"'{mode}' given; {', '.join(accepted)} are accepted", argument="mode")
    return mode == "dependency_aware"


class LevelPruner(one_shot.LevelPruner):
    """Masks the smallest single weights of each layer."""

    def compress(self) -> Result:  # type: ignore[override]
        """Mask. Return the network and its masks."""
        return super().compress(), self.masks


class _NormPruner(Pruner):
    """A pruner by weights.

    Args:
        model, config_list: as for `Pruner`.
        mode: "normal" or "dependency_aware", which needs the dummy input.
        dummy_input: an input.
    """

    def __init__(
        self, model: nn.Module, config_list: Config, mode: str = "normal", dummy_input: ExampleInputs | None = None
    ) -> None:
        super().__init__(model, config_list, dependency_aware=_asks_dependency(mode), dummy_input=dummy_input)

    def compress(self) -> Result:  # type: ignore[override]
        """Mask. Return the network and its masks."""
        return super().compress(), self.masks


class L1NormPruner(_NormPruner):
    """Masks the filters with the smallest L1 norms."""

    criterion = "l1"


class L2NormPruner(_NormPruner):
    """Masks the filters with the smallest L2 norms."""

    criterion = "l2"


class FPGMPruner(_NormPruner):
    """Masks the filters that are nearest to all others."""

    criterion = "geometric_median"


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
            dependency_aware=_asks_dependency(mode, ("normal", "global", "dependency_aware")),
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


class AGPPruner(agp.AGPPruner):
    """Prunes bit by bit by the curve of Zhu and Gupta (2017).

    Args:
        model, config_list: as for `Pruner`.
        pruning_algorithm: the base pruner.
        total_iteration: times at which the share rises.
        finetuner: trains the network after each.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        pruning_algorithm: str = "level",
        total_iteration: int = 10,
        finetuner: Callable[[nn.Module], Any] | None = None,
        **more: Any,
    ) -> None:
        trainer = finetuner or (lambda _model: None)
        super().__init__(
            model, config_list, trainer=trainer, num_iterations=total_iteration + 1, pruning_algorithm=pruning_algorithm
        )

    def compress(self) -> Result:  # type: ignore[override]
        """Prune and train in turns. Return the network and its masks."""
        return super().compress(), self.masks


class SimulatedAnnealingPruner(searching.SimulatedAnnealingPruner):
    """Searches by simulated annealing; arguments are those of v1, `evaluator` may be a `TorchEvaluator`."""

    def __init__(self, model: nn.Module, config_list: Config, evaluator: Any = None, **more: Any) -> None:
        judge = evaluator.judge if isinstance(evaluator, TorchEvaluator) else evaluator
        more = {("base_algo" if name == "pruning_algorithm" else name): value for name, value in more.items()}
        super().__init__(model, config_list, judge, **more)

    def compress(self) -> Result:  # type: ignore[override]
        """Search, then mask what was found. Return the network and its masks."""
        return super().compress(), self.masks
