"""NNCF's filter pruning, as its scripts and configurations have it; see docs/from_nncf.md."""

from pocketprune.compat.nncf.accuracy_aware import create_accuracy_aware_training_loop, run_accuracy_aware
from pocketprune.compat.nncf.config import NNCFConfig, register_default_init_args
from pocketprune.compat.nncf.controller import FilterPruningController
from pocketprune.compat.nncf.creation import create_compressed_model, load_state
from pocketprune.compat.nncf.stage import CompressionStage

__all__ = [
    "CompressionStage",
    "FilterPruningController",
    "NNCFConfig",
    "create_accuracy_aware_training_loop",
    "create_compressed_model",
    "load_state",
    "register_default_init_args",
    "run_accuracy_aware",
]
