"""ADMM: a network is trained towards sparse weights before they are masked (Zhang et al. 2018; Boyd et al. 2011).

    minimise f(W) + rho/2 |W - Z + U|^2 by training;   Z = nearest sparse point to W + U;   U += W - Z

The penalty holds the squared norm. The primal residual |W - Z| says how far the weights are from being sparse, and the
dual one rho |Z - Z before| how far the sparse point still moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.options import COUNT, POSITIVE, Interval, check_options, option
from pocketprune.numerics.projections import SparseSet
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.training.callbacks import Callback, TrainContext
from pocketprune.training.metrics import NullRecorder, Recorder


@dataclass(frozen=True, kw_only=True)
class AdmmSettings:
    """The settings of ADMM."""

    rounds: int = option(8, "times that the sparse point is found anew, evenly over the training", accept=COUNT)
    rho: float = option(0.01, "weight of the distance to the sparse point, at first", accept=POSITIVE)
    rho_growth: float = option(1.3, "what it is multiplied by after each round", accept=Interval(1, 100))

    def __post_init__(self) -> None:
        check_options(self)


class Admm(Callback):
    """Pulls weights towards sets of sparse ones during a training.

    Args:
        net: the network that will be trained.
        sets: layer name -> the set that its weight is pulled to.
        settings: of the method.
        recorder: takes the residuals after each round.
    """

    name = "admm"

    def __init__(
        self,
        net: nn.Module,
        sets: Mapping[str, SparseSet],
        settings: AdmmSettings | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        layers = sparse_layers(net)
        unknown = next((name for name in sets if name not in layers), None)
        if unknown is not None or not sets:
            raise UserError(f"{unknown!r} given; names of layers are accepted", argument="sets")
        self._net, self.sets, self.settings = net, dict(sets), settings or AdmmSettings()
        self._recorder = recorder or NullRecorder()
        self.rho, self.round = self.settings.rho, 0
        self.primal = self.dual = math.inf
        self.sparse = {name: self.sets[name].nearest(weight) for name, weight in self.weights().items()}
        self.scaled_dual = {name: torch.zeros_like(weight).detach() for name, weight in self.weights().items()}

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are pulled, by the name of their layer."""
        own = sparse_layers(self._net)
        return {name: own[name] for name in self.sets}

    def penalty(self, context: TrainContext) -> Tensor:
        """Return rho/2 times the squared distance to the sparse point."""
        distances = [
            (weight - self.sparse[name].to(weight) + self.scaled_dual[name].to(weight)).square().sum()
            for name, weight in self.weights().items()
        ]
        return 0.5 * self.rho * torch.stack(distances).sum()

    def gradient(self, name: str, weight: Tensor) -> Tensor:
        """Return the penalty's gradient at a layer's weight, for a training that no callback can reach."""
        return self.rho * (weight.detach() - self.sparse[name].to(weight) + self.scaled_dual[name].to(weight))

    def after_step(self, context: TrainContext) -> None:
        """End a round where one is due."""
        due = context.step * self.settings.rounds // context.total
        if due > self.round:
            self.end_round(context.step)

    @torch.no_grad()
    def end_round(self, step: int = 0) -> None:
        """Find the sparse point and the dual anew, and record the residuals."""
        primal = dual = 0.0
        for name, weight in self.weights().items():
            moved = weight + self.scaled_dual[name].to(weight)
            sparse = self.sets[name].nearest(moved)
            primal += float((weight - sparse).square().sum())
            dual += float((sparse - self.sparse[name].to(weight)).square().sum())
            self.sparse[name], self.scaled_dual[name] = sparse, moved - sparse
        self.primal, self.dual = math.sqrt(primal), self.rho * math.sqrt(dual)
        self.round += 1
        self._recorder.record("admm/primal_residual", self.primal, step)
        self._recorder.record("admm/dual_residual", self.dual, step)
        self._recorder.record("admm/rho", self.rho, step)
        if self.settings.rho_growth != 1:  # the dual is scaled by rho
            self.rho *= self.settings.rho_growth
            self.scaled_dual = {name: u / self.settings.rho_growth for name, u in self.scaled_dual.items()}

    def masked(self) -> dict[str, Tensor]:
        """Return where the nearest sparse points of the weights are zero, by layer: the masks to end with."""
        return {name: self.sets[name].masked(weight) for name, weight in self.weights().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the sparse point, the dual and the round."""
        return {
            "sparse": dict(self.sparse),
            "scaled_dual": dict(self.scaled_dual),
            "rho": self.rho,
            "round": self.round,
            "residuals": [self.primal, self.dual],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        own = self.weights()
        self.sparse = {name: state["sparse"][name].to(own[name]) for name in own}
        self.scaled_dual = {name: state["scaled_dual"][name].to(own[name]) for name in own}
        self.rho, self.round = state["rho"], state["round"]
        self.primal, self.dual = state["residuals"]
