"""The flags of channel pruning as the engine takes them."""

from config import Config
from pocketprune import PruningOptions
from pocketprune.training.distributed import world_size


def pruning_options(config: Config) -> PruningOptions:
    """Return how the flags say to prune."""
    flags = config.channel_pruning
    return PruningOptions(
        selection=flags.selection,
        shared_input=flags.cp_shared_input,
        points_per_layer=flags.cp_nb_points_per_layer,
        metric=flags.cp_metric,
        depthwise=flags.cp_depthwise_refit,
        channel_multiple=flags.channel_multiple,
        cache_gb=flags.cp_cache_gb,
        moments_gb=flags.cp_moments_gb,
        group_size=flags.cp_list_group,
        together=world_size() > 1,
        seed=config.run.seed,
    )
