"""Channel pruning by reconstruction: prune a trained network layer by layer, then fine-tune what is left.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks" (2017).
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor, nn

import pocketprune
from learners.base import Learner
from learners.channel.options import pruning_options
from learners.channel.ratio_search import RatioSearch, search_settings
from learners.channel.recovering import recover
from learners.channel.resuming import PruningProgress
from learners.reporting import report
from learners.reporting.pictures import record_layers
from learners.reporting.progress import ProgressBar
from learners.teacher import named_teacher
from learners.train_settings import group_settings
from pocketprune.channel_pruning.ratio_list import parse_ratio_list, write_ratio_list
from pocketprune.channel_pruning.targets import Target
from pocketprune.common.errors import UserError
from pocketprune.training.distributed import is_main, rank, world_size


class ChannelPruningLearner(Learner):
    """dense network -> prune -> (recover without labels) -> fine-tune, each measured on the test set."""

    stage = "pruned"
    phases = ("search*", "prune", "tune*", "recover", "finetune")

    def train(self) -> dict:
        target = self.target()  # before any work: a list may be wrong
        named = self.named_teacher()
        dense = self.dense_net()
        teacher = (named or dense) if self.config.distillation.enbl_dst else None
        result = self.prune(dense, self.searched_ratios(dense) if target is None else target, teacher)

        dense_cost, cost = self.costs(dense, result.net)
        dense_row, pruned_row = self.accuracy(dense) | dense_cost, self.accuracy(result.net) | cost
        recovered = {name: row | cost for name, row in recover(self, result.net, dense).items()}
        stages = {"dense": dense_row, "before_finetune": [pruned_row, *recovered.values()][-1]}
        stages["pruned"] = stages["before_finetune"]
        if self.config.train.nb_epochs_rat > 0:
            settings = self.settings(self.config.train.nb_epochs_rat)
            self.fit(result.net, "finetune", settings, "finetune", teacher)
            stages["pruned"] = self.accuracy(result.net) | cost

        if is_main():
            pocketprune.save(self._pruned_path, result.net)
        rows = report.stage_rows(stages, {"before recovery": pruned_row, **recovered} if recovered else {})
        return self.finish(stages | {"stages": rows, "layers": report.layer_entries(result.layers)})

    def trained_net(self) -> nn.Module:
        if not self._pruned_path.exists():
            raise UserError(f"--workdir={self.workdir}: holds no pruned_model.pt; prune first (--exec_mode train)")
        return pocketprune.load(self._pruned_path, self.net)

    def target(self) -> Target | None:
        """The preserve ratios asked for; None if they are to be searched.

        Raises UserError for a list file that does not hold one ratio for each prunable layer, or settings that no
        search can work with.
        """
        pruning = self.config.channel_pruning
        if pruning.cp_prune_option == "auto":
            search_settings(self.config)
            return None
        if pruning.cp_prune_option == "uniform":
            return pruning.cp_uniform_preserve_ratio
        layers = pocketprune.list_layers(self.net, self.example, shared_input=pruning.cp_shared_input)
        names = [layer.name for layer in layers]
        return parse_ratio_list(pruning.cp_prune_list_file, names)

    def named_teacher(self) -> nn.Module | None:
        """The distillation's teacher where the flags name one."""
        if not self.config.distillation.enbl_dst:
            return None
        return named_teacher(self.config, self.dataset, self.example)

    def searched_ratios(self, dense: nn.Module) -> list[float]:
        """The preserve ratios that a search finds under the budget."""
        batches, options = self.calibration_batches(), pruning_options(self.config)

        def prune(ratios: Sequence[float]) -> nn.Module:
            with ProgressBar() as bar:
                hooks = pocketprune.Hooks(progress=bar)
                return pocketprune.prune_channels(dense, batches, ratios, options=options, hooks=hooks).net

        with self.timed("search"):
            return RatioSearch(self).run(dense, batches, prune)

    def prune(self, dense: nn.Module, target: Target, teacher: nn.Module | None = None) -> pocketprune.PruneResult:
        """The pruned network, refitted to what the dense one computes on the calibration images."""
        pruning, batches = self.config.channel_pruning, self.calibration_batches()
        images = sum(len(batch) for batch in batches) * world_size()
        self.say(f"Pruning: {pruning.selection} selection, statistics of {images} training images")

        def tune(net: nn.Module, number: int) -> None:
            self.fit(net, f"tune{number}", group_settings(self.config, self.device.type), "finetune", teacher)

        with PruningProgress(self) as progress, ProgressBar() as bar:
            result = pocketprune.prune_channels(
                dense,
                batches,
                target,
                options=pruning_options(self.config),
                hooks=pocketprune.Hooks(
                    tune=tune if self.config.train.nb_epochs_rat > 0 else None,
                    progress=bar,
                    state=progress.state,
                    on_state=progress.save,
                ),
            )
        self._tell(result)
        self.plot_groups(pruned=result.net)
        return result

    def _tell(self, result: pocketprune.PruneResult) -> None:
        """Print and record what became of the layers, and write down the ratios used."""
        self.say(report.layer_table(result.layers))
        record_layers(self.recorder, result.layers)
        if is_main():
            names = [layer.name for layer in result.layers]
            used = [layer.preserve_ratio for layer in result.layers]
            write_ratio_list(self.workdir / "ratio.list", names, used)

    def calibration_batches(self) -> list[Tensor]:
        """Shuffled, unaugmented images of the training split, `cp_nb_batches` batches but no image twice.

        Under several processes, this one's part of them.
        """
        data, nb_batches = self.config.data, self.config.channel_pruning.cp_nb_batches
        batches = self.dataset.train.batches(
            data.batch_size // world_size(),
            seed=self.config.run.seed,
            shuffle=True,
            rank=rank(),
            world_size=world_size(),
        )
        return [images.to(self.device) for images, _ in islice(batches, nb_batches)]

    @property
    def _pruned_path(self) -> Path:
        return self.workdir / "pruned_model.pt"
