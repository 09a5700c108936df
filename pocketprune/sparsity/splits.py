"""A share of zeros split over layers: by a rule of thumb, or as a search's variables, as in PocketFlow.

A variable is the share of one layer's weights that stays, in thousandths. For each allowed value the layer's weight is
refitted once, in closed form on the dense network's features; a roll-out puts such weights together and scores them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from pocketprune.channel_pruning.searching.scoring import judge_of
from pocketprune.common.modes import evaluation_mode
from pocketprune.numerics.reconstruction import error_ratio
from pocketprune.numerics.sparse_elimination import eliminate
from pocketprune.numerics.weight_patterns import Pattern, piece_count
from pocketprune.search import Score, Values, Variable
from pocketprune.sparsity.closed_form import knows, moments_of_layers, written
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.batch_norm import reestimate_batch_norm

PARTS = 1000
MOST = 0.99  # the highest level of one layer
CHOICES = 8  # allowed values of a layer
NORM_BATCHES = 2


def heuristic_levels(sizes: Sequence[int], level: float) -> list[float]:
    """Return a level for each layer, proportional to the logarithm of its size, that together make the level.

    Args:
        sizes: weights of each layer, two or more.
        level: of all weights together, in [0, 0.99].
    """
    logs, weights = np.log(np.array(sizes, dtype=float)), np.array(sizes, dtype=float)

    def excess(factor: float) -> float:
        return float((weights * np.minimum(factor * logs, MOST)).sum() / weights.sum() - level)

    factor = brentq(excess, 0.0, 1.0 / logs.min(), xtol=1e-12, rtol=1e-14) if level > 0 else 0.0
    return [float(x) for x in np.minimum(factor * logs, MOST)]


class SparsityEnvironment:
    """A network as `search` sees it when layers share a number of zeros. See `pocketprune.search.Environment`.

    Args:
        structure: the analysed dense network, which stays as it is.
        layers: names of the layers that share.
        level: of all their weights together; it bounds the levels of single layers, as in PocketFlow.
        batches: inputs, for the closed form.
        held_out: pairs of images and labels for the scores.
    """

    def __init__(
        self,
        structure: Structure,
        layers: Sequence[str],
        level: float,
        batches: Sequence[Any],
        held_out: Sequence[tuple[Tensor, Tensor]],
    ) -> None:
        net = structure.traced.net
        known = knows(structure)
        self.layers = [name for name in layers if name in known]
        own = sparse_layers(net)
        self._sizes = [own[name].numel() for name in self.layers]
        allowed = allowed_values(level)
        self.variables: Sequence[Variable] = tuple(
            Variable(name, PARTS, allowed, features=(place / len(self.layers), math.log(size)))
            for place, (name, size) in enumerate(zip(self.layers, self._sizes, strict=True))
        )
        self._norm_batches = list(batches)[:NORM_BATCHES]
        self._found: list[dict[int, dict[str, Tensor]]] = []
        self._curves: list[np.ndarray] = []
        with torch.no_grad(), evaluation_mode(net):
            self._judge = judge_of(net, held_out)
            self._net = copy.deepcopy(net)
            self._measure(structure, batches)

    def cost(self, values: Sequence[int]) -> float:
        """Return how many weights stay."""
        return float(sum(size * value / PARTS for size, value in zip(self._sizes, values, strict=True)))

    def error_curve(self, index: int) -> np.ndarray:
        """Return the relative error of a layer's output at each value from 0 to PARTS, between the refits by lines."""
        return self._curves[index]

    @torch.no_grad()
    def score(self, values: Sequence[int]) -> Score:
        """Return the score of the network whose layers keep these shares."""
        own = self._net.state_dict()
        for found, value in zip(self._found, values, strict=True):
            for name, tensor in found[value].items():
                own[name].copy_(tensor)
        reestimate_batch_norm(self._net, self._norm_batches)
        return self._judge.judge(self._net.eval())

    def levels(self, values: Values) -> dict[str, float]:
        """Return the level of each layer."""
        return {name: 1 - value / PARTS for name, value in zip(self.layers, values, strict=True)}

    def _measure(self, structure: Structure, batches: Sequence[Any]) -> None:
        by_name: dict[str, tuple[dict[int, dict[str, Tensor]], np.ndarray]] = {}
        for _, consumer, moments in moments_of_layers(structure, self.layers, batches):
            weight, pattern = consumer.weights[0], Pattern()
            found, errors = {PARTS: written(consumer, moments, weight.double())}, {PARTS: 0.0, 0: 1.0}
            for value in self.variables[0].allowed[:-1]:
                pieces = piece_count(1 - value / PARTS, weight.numel(), pattern)
                _, W = eliminate(
                    moments, weight, consumer.block, pattern, pieces, output_weight=consumer.output_weights[0]
                )
                left = moments.sigma - (W * (2 * moments.B - moments.A @ W)).sum(0)
                errors[value] = error_ratio(float(left.sum()), float(moments.sigma.sum()))
                found[value] = written(consumer, moments, W)
            places = sorted(errors)
            curve = np.interp(np.arange(PARTS + 1), places, [errors[place] for place in places])
            by_name[consumer.decision.layer.name] = (found, curve)
        self._found = [by_name[name][0] for name in self.layers]
        self._curves = [by_name[name][1] for name in self.layers]


def allowed_values(level: float) -> Values:
    """Return the shares, in thousandths, that a layer may keep: from a third of the mean to three times, and all."""
    mean = 1 - level
    shares = np.geomspace(max(mean / 3, 1 - MOST), min(3 * mean, 1.0), CHOICES)
    return tuple(sorted({*(max(1, round(PARTS * share)) for share in shares), PARTS}))
