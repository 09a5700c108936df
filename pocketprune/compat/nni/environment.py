"""Masks on a network as a search sees them: a count of filters for each unit, and a person's own evaluator."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni.pruner import Pruner
from pocketprune.search import Score, Variable

Evaluator = Callable[[nn.Module], float]
"""A person's judge of a network."""

MODES = {"maximize": 1.0, "minimize": -1.0}


class MaskedNetwork:
    """The counts of filters that a pruner's units keep, with their cost and score.

    Args:
        pruner: masks the network.
        evaluator: judges it.
        optimize_mode: "maximize" or "minimize", what the evaluator returns.
        cost: counts -> cost; None: the number of weights in the units' layers.
        tune: a short training of each network before it is judged; its weights are taken back afterwards.
        least: the share of each unit that stays at least.
        multiple: counts are multiples of it, where a unit has as many.

    Attributes:
        evaluator: the judge.
    """

    def __init__(
        self,
        pruner: Pruner,
        evaluator: Evaluator,
        optimize_mode: str = "maximize",
        cost: Callable[[Sequence[int]], float] | None = None,
        tune: Callable[[nn.Module], Any] | None = None,
        least: float = 0.05,
        multiple: int = 1,
    ) -> None:
        if optimize_mode not in MODES:
            raise UserError(f"'{optimize_mode}' given; {' and '.join(MODES)} are accepted", argument="optimize_mode")
        self._pruner, self.evaluator, self._tune = pruner, evaluator, tune
        self._weights = [_weights(pruner, number) for number in range(len(pruner.units))]
        self._cost = cost
        self.variables: Sequence[Variable] = tuple(
            Variable(
                unit.name,
                unit.channels,
                _allowed(unit.channels, least, multiple),
                features=(float(unit.channels), float(weights)),
            )
            for unit, weights in zip(pruner.units, self._weights, strict=True)
        )
        self._sign, self._dense = MODES[optimize_mode], 0.0

    def cost(self, values: Sequence[int]) -> float:
        """Return what these counts cost."""
        if self._cost is not None:
            return self._cost(values)
        return float(sum(count * weights for count, weights in zip(values, self._weights, strict=True)))

    def error_curve(self, index: int) -> np.ndarray:
        """Return the share of a unit's scores that each count leaves out."""
        scores = self._pruner.scores([self._pruner.units[index]])[0].double().sort(descending=True).values
        left = torch.cat([torch.zeros(1, dtype=torch.double), scores.cpu().cumsum(0)])
        curve: np.ndarray = (1 - left / left[-1].clamp_min(1e-12)).numpy()
        return curve

    def score(self, values: Sequence[int]) -> Score:
        """Judge the network with these counts, as a share of what the whole one gets."""
        net = self._pruner.bound_model
        before = copy.deepcopy(net.state_dict()) if self._tune is not None else None
        if not self._dense:
            self._dense = abs(float(self.evaluator(net))) or 1.0
        self._pruner.set_counts(values)
        if self._tune is not None:
            self._tune(net)
        found = self._sign * float(self.evaluator(net)) / self._dense
        self._pruner.unwrap_model()
        if before is not None:
            net.load_state_dict(before)
        return Score(found, -found, max(0.0, self._sign - found))


def _weights(pruner: Pruner, number: int) -> int:
    """Return how many weights one filter of a unit has, over all its layers."""
    unit = pruner.units[number]
    tensors = dict(pruner.bound_model.named_parameters(remove_duplicate=False))
    return sum(tensors[view.tensor].numel() // tensors[view.tensor].shape[view.axis] for view in unit.views)


def _allowed(channels: int, least: float, multiple: int) -> tuple[int, ...]:
    lowest = max(1, math.ceil(least * channels - 1e-9))
    counts = {count for count in range(lowest, channels + 1) if count % multiple == 0}
    return tuple(sorted(counts | {channels}))
