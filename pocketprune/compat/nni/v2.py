"""NNI's pruners as v2 and v3 have them: `compress` returns the network and its masks.

The names that both have are here with their later arguments. A config list with `sparse_ratio` is v3's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni import agp, one_shot, searching
from pocketprune.compat.nni.counting import count_flops_params
from pocketprune.compat.nni.evaluated import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    SlimPruner,
    TaylorFOWeightPruner,
    TaylorPruner,
)
from pocketprune.compat.nni.evaluator import TorchEvaluator, asks_dependency, trace
from pocketprune.compat.nni.pruner import Masks, Pruner
from pocketprune.compat.nni.speedup import ModelSpeedup
from pocketprune.compat.nni.units import ChannelDependency
from pocketprune.compression.ranking import masked_count
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.weight_patterns import Pattern

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


class LevelPruner(one_shot.LevelPruner):
    """Masks the smallest single weights of each layer.

    Args:
        model, config_list: as for `Pruner`.
        mode: "normal", or "balance": as many in each block.
        balance_gran: how long blocks along the last axis are, as [length].
    """

    def __init__(
        self, model: nn.Module, config_list: Config, mode: str = "normal", balance_gran: Sequence[int] | None = None
    ) -> None:
        super().__init__(model, config_list)
        if mode not in ("normal", "balance"):
            raise UserError(f"'{mode}' given; normal and balance are accepted", argument="mode")
        if mode == "balance" and (balance_gran is None or len(balance_gran) != 1 or balance_gran[0] < 2):
            raise UserError(f"{balance_gran} given; [length of a block] is accepted", argument="balance_gran")
        self._block = balance_gran[0] if mode == "balance" and balance_gran is not None else 0

    def _least(self, scores: list[Tensor], share: float) -> list[Tensor]:
        if not self._block:
            return super()._least(scores, share)
        pattern = Pattern(1, self._block, self._block - masked_count(share, self._block))
        odd = next((each for each in scores if each.shape[-1] % self._block), None)
        if odd is not None:
            raise UserError(f"{self._block} does not divide {odd.shape[-1]}", argument="balance_gran")
        blocks = [each.reshape(-1, self._block) for each in scores]
        masks = [
            pattern.masked(block, torch.ones(len(block), dtype=torch.bool, device=block.device)) for block in blocks
        ]
        return [mask.view(each.shape) for mask, each in zip(masks, scores, strict=True)]

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
        super().__init__(model, config_list, dependency_aware=asks_dependency(mode), dummy_input=dummy_input)

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
