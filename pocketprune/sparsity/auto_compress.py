"""AutoCompress (Liu et al. 2020): rounds of a search for ratios, ADMM towards them, and real thinning.

Round k of n brings the MACs to the share P^(k/n) of the dense network's. Ratios are annealed, from uniform ones or from
those of `dp`; training by ADMM then pulls the input channels of each layer to a set with that many zeros; and the
network is thinned, so that the next round trains and searches a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.pruning import prune_channels
from pocketprune.channel_pruning.searching.ratios import search_ratios
from pocketprune.common.errors import UserError
from pocketprune.common.options import COUNT, SHARE, check_option, check_options, option
from pocketprune.numerics.projections import SparseSet
from pocketprune.search import Budget, SearchSettings
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.structure.cost import count_macs
from pocketprune.structure.layers import list_layers
from pocketprune.training.metrics import Recorder

Train = Callable[[nn.Module, Admm, int], None]
"""(network, callback, round from 0): train the network in place with the callback."""


@dataclass(frozen=True, kw_only=True)
class AutoCompressSettings:
    """The settings of AutoCompress."""

    rounds: int = option(3, "rounds of search, ADMM and thinning", accept=COUNT)
    search: str = option("anneal", "how ratios are found: anneal, or dp", accept=("anneal", "dp"))
    start: str = option("uniform", "anneal: where to begin; dp runs that search first", accept=("uniform", "dp"))
    nb_rlouts: int = option(60, "networks that a round's search may score", accept=COUNT)
    selection: str = option(
        "magnitude",
        "the base criterion by which channels go after ADMM: magnitude, lasso or obs",
        accept=("magnitude", "lasso", "obs"),
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        share: of the dense network's MACs that is left.
        ratios: the preserve ratios of its search.
        primal, dual: ADMM's residuals at its end.
    """

    share: float
    ratios: tuple[float, ...]
    primal: float
    dual: float


def auto_compress(
    net: nn.Module,
    batches: Sequence[Tensor],
    share: float,
    held_out: Iterable[Any] | Callable[[nn.Module], float],
    train: Train,
    *,
    settings: AutoCompressSettings | None = None,
    admm: AdmmSettings | None = None,
    options: PruningOptions | None = None,
    recorder: Recorder | None = None,
) -> tuple[nn.Module, list[Round]]:
    """Return a network with a share of the MACs, and what each round did. The network given stays as it is.

    Args:
        net: the dense network.
        batches: of training images, for the closed form.
        share: of the MACs that stays, in (0, 1].
        held_out: as for `search_ratios`.
        train: trains a network with ADMM; the networks are those of the rounds.
        settings: of the rounds.
        admm: of ADMM in each round.
        options: of the pruning; the selection is that of the settings.
        recorder: takes ADMM's residuals.

    Raises:
        UserError: what `search_ratios` and `prune_channels` refuse.
    """
    check_option("share", share, SHARE)
    settings = settings or AutoCompressSettings()
    options = replace(options or PruningOptions(), selection=settings.selection)
    held_out = held_out if callable(held_out) else list(held_out)
    dense, done = count_macs(net, batches[0][:2]), []
    net = prune_channels(net, batches, 1.0, options=options).net  # a copy
    for number in range(settings.rounds):
        wanted = share ** ((number + 1) / settings.rounds) * dense / count_macs(net, batches[0][:2])
        ratios = _ratios(net, batches, min(1.0, wanted), held_out, settings, options)
        pull = Admm(net, _sets(net, batches, ratios, options), admm, recorder)
        train(net, pull, number)
        net = prune_channels(net, batches, ratios, options=options).net
        left = count_macs(net, batches[0][:2]) / dense
        done.append(Round(left, tuple(ratios), pull.primal, pull.dual))
    return net, done


def _ratios(
    net: nn.Module,
    batches: Sequence[Tensor],
    share: float,
    held_out: Any,
    settings: AutoCompressSettings,
    options: PruningOptions,
) -> list[float]:
    budget = Budget("macs", share)
    first: tuple[int, ...] = ()
    if settings.search == "anneal" and settings.start == "dp":
        found = search_ratios(net, batches, budget, held_out, method="dp", options=options)
        layers = list_layers(net, batches[0][:2], options.shared_input, options.layers)
        first = tuple(max(1, round(ratio * layer.channels)) for ratio, layer in zip(found.ratios, layers, strict=True))
    limits = SearchSettings(nb_rlouts=settings.nb_rlouts, start=first, swaps=min(60, settings.nb_rlouts))
    return search_ratios(
        net, batches, budget, held_out, method=settings.search, options=options, settings=limits
    ).ratios


def _sets(
    net: nn.Module, batches: Sequence[Tensor], ratios: Sequence[float], options: PruningOptions
) -> dict[str, SparseSet]:
    """Return the set that each layer's weight is pulled to: as many input channels at zero as its ratio removes."""
    own = sparse_layers(net)
    layers = list_layers(net, batches[0][:2], options.shared_input, options.layers)
    sets = {
        layer.name: SparseSet("channels", 1 - ratio)
        for layer, ratio in zip(layers, ratios, strict=True)
        if layer.removable and ratio < 1 and layer.name in own
    }
    if not sets:
        raise UserError("no layer can lose channels at this share", argument="share")
    return sets
