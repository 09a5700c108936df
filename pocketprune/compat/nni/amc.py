"""NNI's AMC: an agent searches how far each layer is pruned, under a budget of multiply-adds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pocketprune.compat.nni.environment import Evaluator, MaskedNetwork
from pocketprune.compat.nni.one_shot import L1FilterPruner
from pocketprune.compat.nni.searching import SearchingPruner
from pocketprune.compression.costs import GroupCosts
from pocketprune.search import Budget, SearchSettings
from pocketprune.structure.channel_groups import analyse


class _Shareless(L1FilterPruner):
    """The base pruner of AMC, whose config list says nothing of shares."""

    shares = False


class AMCPruner(SearchingPruner):
    """Lets a learning agent choose each layer's share under a budget of multiply-adds (He et al. 2018).

    Args:
        model, config_list: as for `Pruner`; the config list says which layers, `flops_ratio` how far.
        evaluator: judges a network, as (val_loader, model) or (model).
        val_loader: batches of inputs, or of pairs of inputs and labels.
        flops_ratio: the share of the multiply-adds that stays.
        lbound: the share of each layer that stays at least.
        channel_round: counts are multiples of it.
        train_episode: networks that are judged.
        warmup: random ones among them, before the agent acts.
        suffix, model_type, dataset, rbound, more: taken for NNI's sake.
    """

    method = "ddpg"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        evaluator: Callable[..., float],
        val_loader: Iterable[Any],
        suffix: str | None = None,
        model_type: str = "mobilenet",
        dataset: str = "cifar10",
        flops_ratio: float = 0.5,
        lbound: float = 0.2,
        rbound: float = 1.0,
        channel_round: int = 8,
        train_episode: int = 800,
        warmup: int = 100,
        **more: Any,
    ) -> None:
        batch = next(iter(val_loader))
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        super().__init__(model, config_list, _Shareless, dependency_aware=True, dummy_input=inputs)
        structure, names = analyse(model, inputs), [unit.name for unit in self._base.units]
        costs = GroupCosts(structure, [structure.group(name) for name in names])
        self._env = MaskedNetwork(
            self._base,
            _on(evaluator, val_loader),
            cost=lambda counts: costs.macs(dict(zip(names, counts, strict=True))),
            least=lbound,
            multiple=channel_round,
        )
        self._ratio = flops_ratio
        self._settings = SearchSettings(nb_rlouts=train_episode, nb_rlouts_min=min(warmup, train_episode // 2))

    def compress(self) -> nn.Module:
        """Search, then mask what was found. Return the network."""
        return self._search(self._env, Budget("macs", self._ratio), self._settings)


def _on(evaluator: Callable[..., float], val_loader: Iterable[Any]) -> Evaluator:
    """Return an evaluator of a network alone."""
    needed = [p for p in inspect.signature(evaluator).parameters.values() if p.default is inspect.Parameter.empty]
    return evaluator if len(needed) < 2 else lambda model: evaluator(val_loader, model)
