"""What can be pruned: printed, drawn, and templates to edit."""

from collections.abc import Sequence

from torch import nn

import pocketprune
from learners.context import RunContext
from learners.start import load_start
from pocketprune import Structure
from pocketprune.channel_pruning.ratio_list import write_ratio_list
from pocketprune.reporting import tables
from pocketprune.structure.layers import layers_of
from pocketprune.training.distributed import is_main


def structure_of(run: RunContext) -> Structure:
    """Return the analysed network of --init_checkpoint where one is given, which may be pruned already."""
    net = (load_start(run) if run.config.net.init_checkpoint else None) or run.net
    return pocketprune.analyse(net, run.example)


def show_layers(run: RunContext) -> None:
    """Print the prunable layers and the channel groups, and write a template of a ratio list.

    They are those of --init_checkpoint's network where one is given: it may be pruned already.
    """
    structure = structure_of(run)
    layers = layers_of(structure, run.config.channel_pruning.cp_shared_input)
    path = run.workdir / "ratio_template.list"
    if is_main():
        write_ratio_list(path, [layer.name for layer in layers], [1.0] * len(layers))
    run.say(tables.layer_listing(layers))
    run.say(f"\n{tables.group_listing(structure.groups)}")
    plot_groups(run, structure.groups)
    run.say(f"\nOne preserve ratio for each stands in {path}. Edit it, then prune with")
    run.say(f"  --learner channel --cp_prune_option list --cp_prune_list_file {path}")


def plot_groups(run: RunContext, groups: Sequence[pocketprune.ChannelGroup], pruned: nn.Module | None = None) -> None:
    """With --plot, draw a network's channel groups, and what a pruned one has left of them."""
    if run.config.run.plot and is_main():
        path = run.workdir / "channel_groups.png"
        pocketprune.draw_groups(path, groups, pruned)
        run.say(f"\nChannel groups drawn in {path}")
