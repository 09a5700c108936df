"""The controller that a training script holds, with the methods that NNCF's has."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.options import FRACTION, check_option
from pocketprune.compat.nncf.clusters import counts_of, level_of, model_statistics, weight_level
from pocketprune.compat.nncf.exporting import check, write
from pocketprune.compat.nncf.inputs import Example, adaptation_batches
from pocketprune.compat.nncf.prunable import Candidate
from pocketprune.compat.nncf.scheduler import PruningScheduler
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.settings import FilterPruning
from pocketprune.compat.nncf.stage import CompressionStage, stage_of
from pocketprune.compat.nncf.statistics import FilterPruningStatistics, NNCFStatistics
from pocketprune.compat.nncf.watching import Watch
from pocketprune.compression.controller import Controller
from pocketprune.compression.costs import FlopCosts
from pocketprune.deploy.export import TOLERANCE
from pocketprune.training.batch_norm import reestimate_batch_norm

NAME = "filter_pruning"


class FilterPruningController:
    """Prunes one network by one `filter_pruning` entry; `create_compressed_model` makes it.

    Attributes:
        model: the network. It stays a plain one, with zeros where it is pruned.
        control: PocketPrune's own controller, which does the work.
        scheduler: counts epochs and sets levels.
        frozen: whether masks stay as they are.
        pruning_level: the level that was set last.
        prune_flops: whether levels are shares of the FLOPs.
    """

    name = NAME
    tolerance = TOLERANCE
    """Largest difference of an exported file's outputs, as a share of the largest one."""

    def __init__(
        self,
        control: Controller,
        given: FilterPruning,
        found: Sequence[Candidate],
        scopes: Scopes,
        costs: FlopCosts,
        loader: Any,
        example: Example,
    ) -> None:
        self.model, self.control = control.net, control
        self._given, self._scopes, self._costs, self._loader, self._example = given, scopes, costs, loader, example
        self._left = [c for c in found if c.reason]
        self._clusters = [c for c in found if not c.reason]
        self.prune_flops, self.frozen, self.pruning_level = given.flops, False, 0.0
        self.scheduler = PruningScheduler(given, self.set_pruning_level, self.freeze)
        self._watch = Watch(self.model, control.masks)

    def loss(self) -> Tensor:
        """Return what is to be added to the task's loss: 0 for pruning."""
        return self.control.loss()

    def set_pruning_level(
        self, pruning_level: float | Mapping[int, float], run_batchnorm_adaptation: bool = False
    ) -> None:
        """Choose masks anew, unless they are frozen.

        Args:
            pruning_level: of all layers, or of each group of layers by its number in `current_groupwise_pruning_level`.
            run_batchnorm_adaptation: whether batch-norm statistics are taken anew from the registered data.

        Raises:
            UserError: a level that is not accepted or cannot be reached, or groups that are not those there are.
        """
        levels = pruning_level.values() if isinstance(pruning_level, Mapping) else [pruning_level]
        for level in levels:
            check_option("pruning_level", level, FRACTION)
        if isinstance(pruning_level, Mapping):
            self._set_groups(pruning_level)
            self.pruning_level = weight_level(self.control, self._clusters)
        else:
            if not self.frozen:
                self.control.set_levels([float(pruning_level)])
            self.pruning_level = float(pruning_level)
        if run_batchnorm_adaptation:
            self.adapt_batch_norm()

    @property
    def current_groupwise_pruning_level(self) -> dict[int, float]:
        """Number of each group of layers -> the share of its filters that is masked."""
        return {number: level_of(self.control, cluster) for number, cluster in enumerate(self._clusters)}

    @property
    def compression_rate(self) -> float:
        """The share of the FLOPs that is gone, or the level that was set; setting it ignores a freeze."""
        if self.prune_flops:
            return 1 - self._costs.flops(counts_of(self.control)) / self._costs.dense_flops
        return self.pruning_level

    @compression_rate.setter
    def compression_rate(self, compression_rate: float) -> None:
        frozen, self.frozen = self.frozen, False
        try:
            self.set_pruning_level(compression_rate)
        finally:
            self.frozen = frozen

    @property
    def maximal_compression_rate(self) -> float:
        """The highest level that can be reached; no layer loses all of its filters."""
        return self.control.planner.reachable()

    def compression_stage(self) -> CompressionStage:
        """Return how far the network is compressed."""
        return stage_of(self.compression_rate, self.scheduler.target_level)

    def freeze(self, freeze: bool = True) -> None:
        """Let masks stay as they are, or change again."""
        self.frozen = freeze

    def disable_scheduler(self) -> None:
        """Let the scheduler set no level any more."""
        self.scheduler.disable()

    def distributed(self) -> None:
        """Do nothing: all processes choose the same filters."""

    def adapt_batch_norm(self) -> None:
        """Take batch-norm statistics anew from the registered data, if there are any."""
        if self._loader is None or not self._given.bn_samples:
            return
        reestimate_batch_norm(
            self.model, adaptation_batches(self._loader, self._given.bn_samples, device_of(self.model))
        )

    def statistics(self, quickly_collected_only: bool = False) -> NNCFStatistics:
        """Return what is pruned at present; it is always collected quickly."""
        model = model_statistics(self.control, self._clusters, self._left, self._scopes, self._costs)
        scheduler = self.scheduler
        return NNCFStatistics(
            FilterPruningStatistics(model, scheduler.current_pruning_level, scheduler.target_level, self.prune_flops)
        )

    def get_compression_state(self) -> dict[str, Any]:
        """Return what `create_compressed_model` takes as `compression_state`: tensors and plain values."""
        state = {
            "scheduler_state": self.scheduler.get_state(),
            "compression_stage": int(self.compression_stage()),
            "pruning_level": self.pruning_level,
            "frozen": self.frozen,
            "masks": copy.deepcopy(self.control.state_dict()),
        }
        return {"builder_state": {NAME: {"groups": list(self.control.planner.views)}}, "ctrl_state": {NAME: state}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the part `ctrl_state` of what `get_compression_state` returned.

        Raises:
            UserError: it is of another configuration or network.
        """
        own = state[NAME]
        self.control.load_state_dict(own["masks"])
        self.scheduler.load_state(own["scheduler_state"])
        self.pruning_level, self.frozen = own["pruning_level"], own["frozen"]

    def prepare_for_export(self) -> None:
        """Put zeros back where the network is pruned."""
        self.control.masks.enforce()

    def strip(self, do_copy: bool = True, *, remove: bool = True) -> nn.Module:
        """Return the network without its pruned filters, which is smaller.

        Args:
            do_copy: False lets the network itself become what is returned, where its own code can run it.
            remove: False returns what NNCF did: the network in its old size, with zeros for all that is pruned.
        """
        with self._watch:
            if remove:
                stripped = self.control.remove()
            else:
                stripped = copy.deepcopy(self.model)
                self.control.masks.erase(stripped)
        return stripped if do_copy else self._become(stripped)

    def export_model(
        self,
        save_path: str,
        save_format: str | None = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        model_args: tuple[Any, ...] | None = None,
    ) -> None:
        """Write the smaller network as a verified file: .onnx, or beyond NNCF .xml (OpenVINO) or .pt2.

        Args:
            save_path: the file.
            save_format: "onnx"; the version of the operators is the exporter's own, whatever follows it.
            input_names, output_names: not used, with a warning.
            model_args: more arguments of the network than `input_info` says; the last may be a dict of keywords.

        Raises:
            UserError: another format, or the errors of `pocketprune.export_onnx`.
        """
        check(save_path, save_format)
        if input_names or output_names:
            warnings.warn("export_model: inputs and outputs get the exporter's own names", stacklevel=2)
        write(self.strip(), self._example, save_path, model_args, self.tolerance)

    def _become(self, stripped: nn.Module) -> nn.Module:
        """Let the network be what its copy has become, if it still is of the same class."""
        self._watch.end()
        if type(stripped) is not type(self.model):
            return stripped
        vars(self.model).clear()
        vars(self.model).update(vars(stripped))
        return self.model

    def _set_groups(self, levels: Mapping[int, float]) -> None:
        if self._given.all_weights:
            raise UserError("levels of groups given with all_weights; one number is accepted", argument="pruning_level")
        if set(levels) != set(range(len(self._clusters))):
            raise UserError(
                f"groups {sorted(levels)} given; 0 to {len(self._clusters) - 1} are accepted", argument="pruning_level"
            )
        if not self.frozen:
            self.control.set_group_levels({self._clusters[n].group.name: level for n, level in levels.items()})
