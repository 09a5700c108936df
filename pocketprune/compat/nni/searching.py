"""NNI's pruners that search how far each layer is pruned; the searchers are this project's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nni.agp import BASES
from pocketprune.compat.nni.environment import Evaluator, MaskedNetwork
from pocketprune.compat.nni.pruner import BuiltOn, Pruner
from pocketprune.search import Budget, SearchResult, SearchSettings, search

FILTER_BASES = ("l1", "l2", "fpgm")
"""The base pruners whose counts can be searched: they mask whole filters, by the weights alone."""


class SearchingPruner(BuiltOn):
    """A pruner that searches shares for all layers together.

    Attributes:
        bound_model: the network.
        found: the result of the search, once `compress` has run.
    """

    method: str

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        base: type[Pruner],
        **more: Any,
    ) -> None:
        self._base = base(model, config_list, **more)
        self.bound_model = model
        self.found: SearchResult | None = None

    def _search(self, env: MaskedNetwork, budget: Budget, settings: SearchSettings) -> nn.Module:
        self.found = search(env, budget, method=self.method, settings=settings)
        self._base.set_counts(self.found.values)
        return self.bound_model

    def _budget(self, env: MaskedNetwork) -> Budget:
        """Return the weights that stay by the config list, as a share of those of all its layers."""
        full = [variable.full for variable in env.variables]
        left = [count * (1 - unit.target.sparsity) for count, unit in zip(full, self._base.units, strict=True)]
        whole = env.cost(full)
        parts = [env.cost([c if i == j else 0 for j, c in enumerate(full)]) for i in range(len(full))]
        share = sum(part * keep / count for part, keep, count in zip(parts, left, full, strict=True)) / whole
        return Budget("params", share)


class NetAdaptPruner(SearchingPruner):
    """Lowers, round by round, the layers that lose least (Yang et al. 2018).

    Args:
        model, config_list: as for `Pruner`; the shares are met by all layers together.
        short_term_fine_tuner: a short training of each network before it is judged.
        evaluator: judges a network.
        optimize_mode: "maximize" or "minimize".
        base_algo: "l1", "l2" or "fpgm".
        sparsity_per_iteration: share of the weights that goes in each round.
        experiment_data_dir: taken for NNI's sake.
    """

    method = "netadapt"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        short_term_fine_tuner: Callable[[nn.Module], Any] | None = None,
        evaluator: Evaluator | None = None,
        optimize_mode: str = "maximize",
        base_algo: str = "l1",
        sparsity_per_iteration: float = 0.05,
        experiment_data_dir: str = "./",
    ) -> None:
        super().__init__(model, config_list, _filter_base(base_algo))
        self._env = MaskedNetwork(self._base, _given(evaluator), optimize_mode, tune=short_term_fine_tuner)
        self._step = sparsity_per_iteration

    def compress(self) -> nn.Module:
        """Search, then mask what was found. Return the network."""
        budget = self._budget(self._env)
        rounds = max(1, math.ceil((1 - budget.share) / self._step - 1e-9))
        settings = SearchSettings(nb_rlouts=rounds * len(self._env.variables) + 1)
        return self._search(self._env, budget, settings)


class SimulatedAnnealingPruner(SearchingPruner):
    """Searches by simulated annealing.

    Args:
        model, config_list, evaluator, optimize_mode, base_algo: as for `NetAdaptPruner`.
        start_temperature, stop_temperature, cool_down_rate: how many networks are judged: one more than it takes to
            cool down. What is accepted is decided on the scale of the scores.
        perturbation_magnitude, experiment_data_dir: taken for NNI's sake.
    """

    method = "anneal"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        optimize_mode: str = "maximize",
        base_algo: str = "l1",
        start_temperature: float = 100,
        stop_temperature: float = 20,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        experiment_data_dir: str = "./",
    ) -> None:
        super().__init__(model, config_list, _filter_base(base_algo))
        self._env = MaskedNetwork(self._base, _given(evaluator), optimize_mode)
        self.tasks = cooling_steps(start_temperature, stop_temperature, cool_down_rate) + 1

    def compress(self) -> nn.Module:
        """Search, then mask what was found. Return the network."""
        return self._search(self._env, self._budget(self._env), SearchSettings(nb_rlouts=self.tasks))


class SensitivityPruner(SearchingPruner):
    """Measures how much each layer's pruning costs, and prunes all to a common loss (Han et al. 2015).

    Args:
        model, config_list, evaluator, base_algo: as for `NetAdaptPruner`.
        finetuner: trains the masked network at the end.
        sparsity_per_iter, acc_drop_threshold, checkpoint_dir: taken for NNI's sake: all is pruned at once, and the
            threshold follows from the share that the config list asks for.
    """

    method = "sensitivity"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Evaluator | None = None,
        finetuner: Callable[..., Any] | None = None,
        base_algo: str = "l1",
        sparsity_per_iter: float = 0.1,
        acc_drop_threshold: float = 0.05,
        checkpoint_dir: str | None = None,
    ) -> None:
        super().__init__(model, config_list, _filter_base(base_algo))
        self._env = MaskedNetwork(self._base, _given(evaluator))
        self._finetuner, self._evaluator = finetuner, _given(evaluator)

    def compress(self, eval_args: Sequence[Any] | None = None, finetune_args: Sequence[Any] | None = None) -> nn.Module:
        """Measure on NNI's grid, 0.1 to 0.9, mask, and train where there is a finetuner. Return the network.

        Args:
            eval_args: what the evaluator is given in place of the network, which may be among it.
            finetune_args: the same for the finetuner.
        """
        if eval_args is not None:
            self._env.evaluator = _with(self._evaluator, eval_args)
        grid = tuple(round(1 - 0.1 * step, 1) for step in range(1, 10))
        self._search(self._env, self._budget(self._env), SearchSettings(probes=grid))
        if self._finetuner is not None:
            self._finetuner(*((self.bound_model,) if finetune_args is None else finetune_args))
        return self.bound_model


def _filter_base(name: str) -> type[Pruner]:
    if name not in FILTER_BASES:
        raise UserError(f"'{name}' given; {', '.join(FILTER_BASES)} are accepted", argument="base_algo")
    return BASES[name]


def cooling_steps(start: float, stop: float, rate: float) -> int:
    """Return how often a temperature is lowered by a rate until it is not above the stop."""
    if not (0 < rate < 1 and 0 < stop <= start):
        raise UserError(f"{start:g} to {stop:g} at rate {rate:g} given; it has to fall", argument="start_temperature")
    return math.ceil(math.log(stop / start) / math.log(rate) - 1e-9)


def _given(evaluator: Evaluator | None) -> Evaluator:
    if evaluator is None:
        raise UserError("none given; a function (model) -> number is accepted", argument="evaluator")
    return evaluator


def _with(evaluator: Callable[..., float], arguments: Sequence[Any]) -> Evaluator:
    """Return an evaluator that is given these arguments."""
    return lambda _model: evaluator(*arguments)
