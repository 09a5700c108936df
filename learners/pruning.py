"""What pruning learners share: their stages and files, calibration images, the layers command, pictures of groups."""

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar

from torch import Tensor, nn

import pocketprune
from learners.base import Learner
from learners.context import RunContext
from learners.reporting import tables
from learners.start import load_start
from pocketprune.channel_pruning.ratio_list import write_ratio_list
from pocketprune.common.errors import UserError
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.layers import layers_of
from pocketprune.training.distributed import is_main, rank, world_size


class PruningLearner(Learner):
    """Ends with a pruned network, pruned_model.pt; the network it started with is the row "dense"."""

    stages: ClassVar = {"dense": "dense", "before_finetune": "before fine-tuning", "pruned": "final"}

    def trained_net(self) -> nn.Module:
        """Return the pruned network. Raises UserError where there is none yet."""
        if not self.artifact.exists():
            raise UserError(
                f"--workdir={self.run.workdir}: holds no {self.artifact.name}; prune first (--exec_mode train)"
            )
        return super().trained_net()


def calibration_batches(run: RunContext) -> list[Tensor]:
    """Return shuffled, unaugmented images of the training split, `cp_nb_batches` batches but no image twice.

    Under several processes, this one's part of them.
    """
    data, nb_batches = run.config.data, run.config.channel_pruning.cp_nb_batches
    batches = run.dataset.train.batches(
        data.batch_size // world_size(),
        seed=run.config.run.seed,
        shuffle=True,
        rank=rank(),
        world_size=world_size(),
    )
    return [images.to(run.device) for images, _ in islice(batches, nb_batches)]


def show_layers(run: RunContext) -> None:
    """Print the prunable layers and the channel groups, and write a template of a ratio list.

    They are those of --init_checkpoint's network where one is given: it may be pruned already.
    """
    net = (load_start(run) if run.config.net.init_checkpoint else None) or run.net
    structure = analyse(net, run.example)
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
