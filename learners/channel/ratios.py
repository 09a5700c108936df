"""Where the preserve ratios come from: one for all layers, a list, or a search."""

from collections.abc import Sequence

from torch import nn

from learners.channel.prune import prune_at_once
from learners.channel.ratio_search import RatioSearch, search_settings
from learners.context import RunContext
from learners.pruning import calibration_batches
from pocketprune import PruneResult
from pocketprune.channel_pruning.ratio_list import parse_ratio_list
from pocketprune.channel_pruning.targets import Target
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.layers import layers_of


def asked_ratios(run: RunContext, dense: Structure) -> Target | None:
    """Return the preserve ratios asked for; None if they are to be searched.

    Raises:
        UserError: a list file does not hold one ratio for each prunable layer, or no search can work with the settings.
    """
    flags = run.config.channel_pruning
    if flags.cp_prune_option == "auto":
        search_settings(run.config)
        return None
    if flags.cp_prune_option == "uniform":
        return flags.cp_uniform_preserve_ratio
    layers = layers_of(dense, flags.cp_shared_input)
    return parse_ratio_list(flags.cp_prune_list_file, [layer.name for layer in layers])


def searched_ratios(run: RunContext, dense: Structure) -> tuple[list[float], PruneResult | None]:
    """Return the preserve ratios, one for each prunable layer, that a search finds under the budget.

    The search prunes its finalists as the run does at its end, so the best one need not be pruned again: it is the
    second value. That is None where there was no choice, or where the run trains between groups of layers.
    """
    batches = calibration_batches(run)
    pruned: dict[tuple[float, ...], PruneResult] = {}

    def prune(ratios: Sequence[float]) -> nn.Module:
        pruned[tuple(ratios)] = prune_at_once(run, dense, batches, ratios)
        return pruned[tuple(ratios)].net

    with run.timed("search"):
        ratios = RatioSearch(run).run(dense, batches, prune)
    tunes = run.config.train.nb_epochs_rat > 0 and run.config.channel_pruning.cp_list_group < len(ratios)
    return ratios, None if tunes else pruned.get(tuple(ratios))
