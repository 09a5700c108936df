"""Where the preserve ratios come from: one for all layers, a list, or a search."""

from learners.channel.prune import prune_at_once
from learners.channel.ratio_search import RatioSearch, search_settings
from learners.context import RunContext
from learners.pruning import calibration_batches
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


def searched_ratios(run: RunContext, dense: Structure) -> list[float]:
    """Return the preserve ratios, one for each prunable layer, that a search finds under the budget."""
    batches = calibration_batches(run)
    with run.timed("search"):
        return RatioSearch(run).run(dense, batches, lambda ratios: prune_at_once(run, dense, batches, ratios))
