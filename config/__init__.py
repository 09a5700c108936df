"""The settings of a run: frozen dataclasses, one per concern. Their fields are the command line's flags.

A new flag is a new field. Its default, its help text and its accepted values are defined once, here or, for an option
of the engine, there. `Config.from_flags` reads a command line. `help_page` shows every flag, grouped by concern.
"""

from config.channel_pruning import ChannelPruningConfig
from config.config import CONCERNS, FLAG_OF_ARGUMENT, Config, short_name
from config.data import DataConfig
from config.discriminating import DiscriminatingConfig
from config.distillation import DistillationConfig
from config.filter_pruning import FilterPruningConfig
from config.help import HELP_FLAGS, help_page
from config.net import NetConfig
from config.quantization import QuantizationConfig
from config.run import RunConfig
from config.search import DdpgConfig, SearchConfig
from config.sparsity import AutoCompressConfig, SparsityConfig, WeightSparseConfig
from config.training import TrainConfig

__all__ = [
    "CONCERNS",
    "FLAG_OF_ARGUMENT",
    "HELP_FLAGS",
    "AutoCompressConfig",
    "ChannelPruningConfig",
    "Config",
    "DataConfig",
    "DdpgConfig",
    "DiscriminatingConfig",
    "DistillationConfig",
    "FilterPruningConfig",
    "NetConfig",
    "QuantizationConfig",
    "RunConfig",
    "SearchConfig",
    "SparsityConfig",
    "TrainConfig",
    "WeightSparseConfig",
    "help_page",
    "short_name",
]
