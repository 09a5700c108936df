"""The calls of the engine that prune: the run's own, which can be resumed, and a search's, which are short."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from learners.channel.options import pruning_options
from learners.channel.resuming import PruningProgress
from learners.context import RunContext
from learners.fitting import fit
from learners.pruning import calibration_batches
from learners.reporting.progress import ProgressBar
from learners.train_settings import group_settings
from pocketprune import Hooks, PruneResult, PruningWarning, prune_channels
from pocketprune.channel_pruning.targets import Target
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.distributed import world_size


def prune(run: RunContext, dense: Structure, target: Target, teacher: nn.Module | None) -> PruneResult:
    """Prune a network, refitted to what it computes on the calibration images; with group tuning, train in between."""
    batches = calibration_batches(run)
    images = sum(len(batch) for batch in batches) * world_size()
    run.say(f"Pruning: {run.config.channel_pruning.selection} selection, statistics of {images} training images")

    def tune(net: nn.Module, number: int) -> None:
        settings = group_settings(run.config, run.device.type)
        fit(run, net, f"tune{number}", settings, "finetune", teacher=teacher, keep_best=True)

    with PruningProgress(run) as progress, ProgressBar() as bar, _warnings_told_later():
        hooks = Hooks(
            tune=tune if run.config.train.nb_epochs_rat > 0 else None,
            progress=bar,
            state=progress.state,
            on_state=progress.save,
        )
        return prune_channels(dense, batches, target, options=pruning_options(run.config), hooks=hooks)


@contextmanager
def _warnings_told_later() -> Iterator[None]:
    """Keep Python from printing what the result lists as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        yield


def prune_at_once(run: RunContext, dense: Structure, batches: Sequence[Tensor], ratios: Sequence[float]) -> PruneResult:
    """Prune a network to such ratios as at the end of a run, without tuning and without checkpoints."""
    with ProgressBar() as bar, _warnings_told_later():
        options = pruning_options(run.config)
        return prune_channels(dense, batches, ratios, options=options, hooks=Hooks(progress=bar))
