"""NNI's pruners that mask once: by weights, or by what a short training shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni.collecting import Collector, Trainer, run_trainer
from pocketprune.compat.nni.config_list import WEIGHTED
from pocketprune.compat.nni.pruner import Pruner
from pocketprune.compat.nni.units import Unit
from pocketprune.compression.ranking import masked_count
from pocketprune.compression.views import View
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.evidence import Evidence
from pocketprune.numerics.weight_patterns import lowest


class LevelPruner(Pruner):
    """Masks the smallest single weights of each layer."""

    accepted: ClassVar = WEIGHTED

    def _units(self, dummy_input: ExampleInputs | None) -> list[Unit]:
        units = []
        for target in self.targets:
            weight = target.module.weight
            assert isinstance(weight, Tensor)
            view = View(f"{target.name}.weight", 0, torch.arange(weight.shape[0])[:, None])
            units.append(Unit(target.name, weight.numel(), (view,), target))
        return units

    def update_mask(self, shares: Mapping[int, float] | None = None) -> None:
        """Choose the masks anew; see `Pruner.update_mask`."""
        tensors = dict(self.bound_model.named_parameters(remove_duplicate=False))
        chosen: dict[str, Tensor] = {}
        for units in self._ranked_together():
            target, names = units[0].target, [unit.views[0].tensor for unit in units]
            share = target.sparsity if shares is None else shares.get(target.entry, 0.0)
            scores = [tensors[name].detach().abs() for name in names]
            chosen |= {name: mask for name, mask in zip(names, self._least(scores, share), strict=True)}
        self._masks.set(chosen)

    def _ranked_together(self) -> list[list[Unit]]:
        """Return the units in groups: those of one entry with a joint share, any other alone."""
        groups: dict[int | str, list[Unit]] = {}
        for unit in self.units:
            groups.setdefault(unit.target.entry if unit.target.is_joint else unit.name, []).append(unit)
        return list(groups.values())

    def _least(self, scores: list[Tensor], share: float) -> list[Tensor]:
        """Return where the lowest scores lie, each a boolean of its weight's shape."""
        gone = lowest(scores, masked_count(share, sum(each.numel() for each in scores)))
        return [mask.view(each.shape) for mask, each in zip(gone, scores, strict=True)]


class L1FilterPruner(Pruner):
    """Masks the filters with the smallest L1 norms (Li et al. 2017)."""

    criterion: ClassVar = "l1"


class L2FilterPruner(Pruner):
    """Masks the filters with the smallest L2 norms."""

    criterion: ClassVar = "l2"


class FPGMPruner(Pruner):
    """Masks the filters that are nearest to all others (He et al. 2019)."""

    criterion: ClassVar = "geometric_median"


class TrainedPruner(Pruner):
    """A pruner that a training goes before.

    Args:
        model, config_list, optimizer, dependency_aware, dummy_input: as for `Pruner`.
        trainer: the training: (model, optimizer, criterion[, epoch]).
        criterion: the loss that it is given.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        optimizer: Any = None,
        trainer: Trainer | None = None,
        criterion: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(model, config_list, optimizer, **more)
        self.trainer, self.loss = trainer, criterion

    def train(self, epoch: int = 0) -> None:
        """Run one epoch of the training.

        Raises:
            UserError: there is none.
        """
        if self.trainer is None:
            raise UserError("none given; a function (model, optimizer, criterion) is accepted", argument="trainer")
        run_trainer(self.trainer, self.bound_model, self.optimizer, self.loss, epoch)


class SlimPruner(TrainedPruner):
    """Masks the smallest batch-norm scales of all layers (Liu et al. 2017).

    Args:
        model, config_list, optimizer, trainer, criterion: as for `TrainedPruner`. Without a trainer the scales are
            taken as they are.
        sparsifying_training_epochs: epochs of the training, in which the scales are pulled to 0.
        scale: how strongly.
    """

    criterion: ClassVar = "bn_scale"
    accepted: ClassVar = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
    joint: ClassVar = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        optimizer: Any = None,
        trainer: Trainer | None = None,
        criterion: Any = None,
        sparsifying_training_epochs: int = 10,
        scale: float = 1e-4,
        **more: Any,
    ) -> None:
        super().__init__(model, config_list, optimizer, trainer, criterion, **more)
        self._epochs, self._scale = sparsifying_training_epochs, scale

    def compress(self) -> nn.Module:
        """Train with the penalty where there is a trainer, then mask."""
        if self.trainer is not None:
            tensors = dict(self.bound_model.named_parameters(remove_duplicate=False))
            scales = [tensors[view.tensor] for unit in self.units for view in unit.views]
            pull = self._scale
            hooks = [s.register_hook(lambda gradient, s=s: gradient + pull * s.detach().sign()) for s in scales]
            for epoch in range(self._epochs):
                self.train(epoch)
            for hook in hooks:
                hook.remove()
        return super().compress()

    def evidence(self, unit: Unit) -> Evidence:
        """Return the scales of a unit's batch norms."""
        tensors = dict(self.bound_model.named_parameters(remove_duplicate=False))
        scales = [view.rows(tensors[view.tensor].detach()).abs().mean(1) for view in unit.views]
        return Evidence(channels=unit.channels, norm_scales=scales)


class ObservingPruner(TrainedPruner):
    """A pruner that looks on while the network is trained.

    With a trainer `compress` runs it and masks. Without one the masks come after so many steps of the optimizer of
    one's own loop, as in NNI before 2.3.

    Args:
        model, config_list, optimizer, trainer, criterion, dependency_aware, dummy_input: as for `TrainedPruner`.
        activation: "relu", "relu6" or "gelu", applied to the layers' outputs.
        sparsifying_training_batches: batches that are looked at.
        statistics_batch_num: the same, as it was called before.
    """

    kind: ClassVar[str] = "activations"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        optimizer: Any = None,
        trainer: Trainer | None = None,
        criterion: Any = None,
        activation: str = "relu",
        sparsifying_training_batches: int = 1,
        statistics_batch_num: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(model, config_list, optimizer, trainer, criterion, **more)
        batches = sparsifying_training_batches if statistics_batch_num is None else statistics_batch_num
        self._collector = Collector(model, self.units, self.kind, batches, activation)
        self._found: dict[str, list[Any]] = {}

    def compress(self) -> nn.Module:
        """Look on while the trainer runs, then mask; without a trainer, begin to look on."""
        if self.trainer is None and self.optimizer is None:
            raise UserError("none given, and no optimizer; one of them is needed", argument="trainer")
        if self.trainer is None:
            self._collector.start()
            self._hook = self.optimizer.register_step_post_hook(lambda *_: self._after_step())
            return self.bound_model
        self.observe()
        return super().compress()

    def observe(self) -> None:
        """Look on anew while the trainer runs."""
        self._collector.start()
        self.train()
        self._found = self._collector.statistics()

    def _after_step(self) -> None:
        if self._collector.is_full:
            self._hook.remove()
            self._found = self._collector.statistics()
            self.update_mask()

    def evidence(self, unit: Unit) -> Evidence:
        """Return what the training has shown of a unit's filters."""
        statistics: dict[str, Any] = {self.kind: self._found[unit.name]}
        return Evidence(channels=unit.channels, **statistics)


class ActivationAPoZRankFilterPruner(ObservingPruner):
    """Masks the filters whose activations are zero most often (Hu et al. 2016)."""

    criterion: ClassVar = "apoz"


class ActivationMeanRankFilterPruner(ObservingPruner):
    """Masks the filters with the smallest mean activations (Molchanov et al. 2017)."""

    criterion: ClassVar = "mean_activation"


class TaylorFOWeightFilterPruner(ObservingPruner):
    """Masks the filters whose removal changes the loss least, to first order (Molchanov et al. 2019)."""

    criterion: ClassVar = "taylor"
    kind: ClassVar = "gradients"
