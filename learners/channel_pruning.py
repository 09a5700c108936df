"""Channel pruning by reconstruction: prune a trained network layer by layer, then fine-tune what is left.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks" (2017).
"""

from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import pocketprune
from learners import report
from learners.learner import Learner
from learners.pictures import record_layers
from learners.progress import ProgressBar
from pocketprune.errors import UserError
from pocketprune.numerics.ratios import parse_ratio_list, write_ratio_list
from pocketprune.training.distributed import is_main


class ChannelPruningLearner(Learner):
    """dense network -> prune -> fine-tune, each measured on the test set."""

    stage = "pruned"

    def train(self) -> dict:
        ratios = self.preserve_ratios()  # before any work: a list may be wrong
        dense = self.dense_net()
        result = self.prune(dense, ratios)

        dense_cost, cost = self.costs(dense, result.net)
        stages = {"dense": self.accuracy(dense) | dense_cost}
        stages["before_finetune"] = stages["pruned"] = self.accuracy(result.net) | cost

        if self.config.train.nb_epochs_rat > 0:
            self.fit(result.net, "finetune", self.config.train.nb_epochs_rat, clock="finetune")
            stages["pruned"] = self.accuracy(result.net) | cost

        if is_main():
            pocketprune.save(self._pruned_path, result.net)
        return self.finish(stages | {"layers": report.layer_entries(result.layers)})

    def trained_net(self) -> nn.Module:
        if not self._pruned_path.exists():
            raise UserError(
                f"--workdir={self.workdir}: holds no pruned_model.pt; prune first (--exec_mode train)"
            )
        return pocketprune.load(self._pruned_path, self.net)

    def preserve_ratios(self) -> dict[str, Any]:
        """The preserve ratios asked for, as the argument of prune_channels that takes them.

        Raises UserError for a list file that does not hold one ratio for each prunable layer.
        """
        pruning = self.config.channel_pruning
        if pruning.cp_prune_option == "uniform":
            return {"preserve_ratio": pruning.cp_uniform_preserve_ratio}
        layers = pocketprune.list_layers(self.net, self.example, shared_input=pruning.cp_shared_input)
        names = [layer.name for layer in layers]
        return {"ratios": parse_ratio_list(pruning.cp_prune_list_file, names)}

    def prune(self, dense: nn.Module, ratios: dict[str, Any]) -> pocketprune.PruneResult:
        """The pruned network, refitted to what the dense one computes on the calibration images."""
        pruning = self.config.channel_pruning
        batches = self.calibration_batches()
        images = sum(len(batch) for batch in batches)
        self.say(f"Pruning: {pruning.selection} selection, statistics of {images} training images")
        with self.timed("prune"), ProgressBar() as bar:
            result = pocketprune.prune_channels(
                dense,
                batches,
                **ratios,
                selection=pruning.selection,
                shared_input=pruning.cp_shared_input,
                points_per_layer=pruning.cp_nb_points_per_layer,
                channel_multiple=pruning.channel_multiple,
                cache_gb=pruning.cp_cache_gb,
                seed=self.config.run.seed,
                progress=bar,
            )
        self.say(report.layer_table(result.layers))
        record_layers(self.recorder, result.layers)
        if is_main():
            names = [layer.name for layer in result.layers]
            used = [layer.preserve_ratio for layer in result.layers]
            write_ratio_list(self.workdir / "ratio.list", names, used)
        return result

    def calibration_batches(self) -> list[Tensor]:
        """Shuffled, unaugmented images of the training split, `cp_nb_batches` batches but no image twice."""
        data, nb_batches = self.config.data, self.config.channel_pruning.cp_nb_batches
        batches = self.dataset.train.batches(data.batch_size, seed=self.config.run.seed, shuffle=True)
        return [images.to(self.device) for images, _ in islice(batches, nb_batches)]

    @property
    def _pruned_path(self) -> Path:
        return self.workdir / "pruned_model.pt"
