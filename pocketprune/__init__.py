"""PocketPrune: channel pruning by reconstruction on any network that torch.export can trace."""

from pocketprune.channel_pruning.measuring import PruningWarning
from pocketprune.channel_pruning.options import Hooks, PruningOptions
from pocketprune.channel_pruning.pruning import prune_channels
from pocketprune.channel_pruning.results import LayerResult, PruneResult
from pocketprune.channel_pruning.searching.ratios import FoundRatios, search_ratios
from pocketprune.channel_pruning.targets import MacsShare
from pocketprune.channel_pruning.tasks import Task, classification
from pocketprune.common.errors import UserError
from pocketprune.compression.controller import Controller
from pocketprune.compression.policy import Policy
from pocketprune.deploy.artifacts import load, save
from pocketprune.deploy.drawing import draw_groups
from pocketprune.deploy.export import Exported, export_onnx, export_openvino, export_pt2
from pocketprune.deploy.latency import measure_latency
from pocketprune.quantization.options import QuantizationOptions
from pocketprune.quantization.quantizing import quantize
from pocketprune.quantization.steps import register
from pocketprune.search import Budget, SearchSettings
from pocketprune.sparsity.compressing import compress
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule
from pocketprune.structure.channel_groups import Structure, analyse, find_channel_groups
from pocketprune.structure.cost import count_macs, count_params
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import PrunableLayer, list_layers
from pocketprune.thinning.removal import remove_channels

__all__ = [
    "Budget",
    "ChannelGroup",
    "Controller",
    "Exported",
    "FoundRatios",
    "Hooks",
    "LayerResult",
    "MacsShare",
    "Policy",
    "PrunableLayer",
    "PruneResult",
    "PruningOptions",
    "PruningWarning",
    "QuantizationOptions",
    "SearchSettings",
    "SparsityController",
    "SparsityPolicy",
    "Structure",
    "Task",
    "UserError",
    "WeightRule",
    "analyse",
    "classification",
    "compress",
    "count_macs",
    "count_params",
    "draw_groups",
    "export_onnx",
    "export_openvino",
    "export_pt2",
    "find_channel_groups",
    "list_layers",
    "load",
    "measure_latency",
    "prune_channels",
    "quantize",
    "remove_channels",
    "save",
    "search_ratios",
    "sparsify",
]

register()  # the kind of steps that networks in integers carry
