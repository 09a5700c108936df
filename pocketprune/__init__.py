"""PocketPrune: channel pruning by reconstruction on any network that torch.export can trace."""
from pocketprune.channel_pruning import LayerResult, PruneResult, prune_channels
from pocketprune.errors import UserError
from pocketprune.structure.artifacts import load, save
from pocketprune.structure.channel_groups import ChannelGroup, find_channel_groups
from pocketprune.structure.cost import count_macs, count_params, measure_latency
from pocketprune.structure.drawing import draw_groups
from pocketprune.structure.export import Exported, export_onnx, export_openvino, export_pt2
from pocketprune.structure.layers import PrunableLayer, list_layers
from pocketprune.structure.removal import remove_channels

__all__ = [
    "ChannelGroup", "Exported", "LayerResult", "PrunableLayer", "PruneResult", "UserError", "count_macs",
    "count_params", "draw_groups", "export_onnx", "export_openvino", "export_pt2", "find_channel_groups",
    "list_layers", "load", "measure_latency", "prune_channels", "remove_channels", "save",
]
