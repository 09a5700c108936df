"""Training and measuring networks. Nothing here knows of pruning, of flags, or of the source of the data."""

from pocketprune.training.average import MovingAverage
from pocketprune.training.best import Best, BestState, Judge
from pocketprune.training.callbacks import Callback, CallbackList, TrainContext
from pocketprune.training.checkpoint import Checkpoint, Checkpoints, compare_configs
from pocketprune.training.distillation import Distillation
from pocketprune.training.distributed import processes
from pocketprune.training.log import NonFiniteError
from pocketprune.training.loop import TrainResult, train
from pocketprune.training.metrics import Metrics, NullRecorder, Recorder, Split, create_recorder, evaluate
from pocketprune.training.objectives import Classification, Objective
from pocketprune.training.schedules import (
    POCKETFLOW_RECIPES,
    Constant,
    Cosine,
    Exponential,
    Piecewise,
    Recipe,
    Schedule,
    start_rate,
)
from pocketprune.training.state import TrainSettings
from pocketprune.training.stopping import PeerError, Preempted, StopSignal

__all__ = [
    "POCKETFLOW_RECIPES",
    "Best",
    "BestState",
    "Callback",
    "CallbackList",
    "Checkpoint",
    "Checkpoints",
    "Classification",
    "Constant",
    "Cosine",
    "Distillation",
    "Exponential",
    "Judge",
    "Metrics",
    "MovingAverage",
    "NonFiniteError",
    "NullRecorder",
    "Objective",
    "PeerError",
    "Piecewise",
    "Preempted",
    "Recipe",
    "Recorder",
    "Schedule",
    "Split",
    "StopSignal",
    "TrainContext",
    "TrainResult",
    "TrainSettings",
    "compare_configs",
    "create_recorder",
    "evaluate",
    "processes",
    "start_rate",
    "train",
]
