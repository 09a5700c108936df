"""What became of each layer: printed, recorded, drawn, and the ratios written down."""

from collections.abc import Sequence

from learners.context import RunContext
from learners.listing import plot_groups
from learners.reporting.pictures import record_layers
from pocketprune import ChannelGroup, PruneResult
from pocketprune.channel_pruning.ratio_list import write_ratio_list
from pocketprune.reporting.tables import layer_table
from pocketprune.training.distributed import is_main


def tell_layers(run: RunContext, groups: Sequence[ChannelGroup], result: PruneResult) -> None:
    """Tell what a pruning did to each layer of the dense network with these channel groups."""
    run.say(layer_table(result.layers))
    for warning in result.warnings:
        run.say(f"warning: {warning}")
    record_layers(run.recorder, result.layers)
    if is_main():
        names = [layer.name for layer in result.layers]
        used = [layer.preserve_ratio for layer in result.layers]
        write_ratio_list(run.workdir / "ratio.list", names, used)
    plot_groups(run, groups, result.net)
