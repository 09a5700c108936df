"""PocketPrune: channel pruning by reconstruction on any network that torch.export can trace."""
from pocketprune.channel_pruning import LayerResult, PruneResult, prune_channels
from pocketprune.errors import UserError
from pocketprune.structure.artifacts import load, save
from pocketprune.structure.channel_groups import ChannelGroup, find_channel_groups
from pocketprune.structure.cost import count_macs, count_params, measure_latency
from pocketprune.structure.layers import PrunableLayer, list_layers
from pocketprune.structure.removal import remove_channels

__all__ = [
    "ChannelGroup", "LayerResult", "PrunableLayer", "PruneResult", "UserError", "count_macs", "count_params",
    "find_channel_groups", "list_layers", "load", "measure_latency", "prune_channels", "remove_channels",
    "save",
]
