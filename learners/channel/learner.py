"""Channel pruning by reconstruction: prune a trained network layer by layer, then fine-tune what is left.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks" (2017).
"""

from typing import Any

from torch import nn

from learners.channel.budget import asked_and_reached
from learners.channel.prune import prune
from learners.channel.ratios import asked_ratios, searched_ratios
from learners.channel.recovering import check_recovery, recover
from learners.channel.telling import tell_layers
from learners.fitting import best_entry, fit
from learners.measuring import Row, costs, quality
from learners.pruning import PruningLearner
from learners.start import train_dense
from learners.teacher import named_teacher, teacher_of
from learners.train_settings import finetune_settings
from pocketprune import PruneResult
from pocketprune.reporting.budgets import budget_warnings
from pocketprune.reporting.report import layer_entries
from pocketprune.structure.channel_groups import analyse


class ChannelPruningLearner(PruningLearner):
    """dense network -> prune -> (recover without labels) -> fine-tune, each measured on the test set."""

    settings = (*PruningLearner.settings, "channel_pruning", "search", "ddpg")
    phases = ("search*", "prune", "tune*", "recover*", "finetune")

    def train(self) -> dict[str, Any]:
        """Prune the network that the run starts with, and fine-tune it. Return the report."""
        run = self.run
        start = self.start()
        structure = analyse(run.net if start is None else start, run.example)
        target = asked_ratios(run, structure)  # before any work: a list may be wrong
        named = named_teacher(run)
        self.claim()
        dense = train_dense(run, run.net) if start is None else start
        teacher = teacher_of(run, named, dense)
        check_recovery(run, dense)
        dense_quality = quality(run, dense)

        result = None
        if target is None:
            target, result = searched_ratios(run, structure)
        result = result or prune(run, structure, target, teacher)
        tell_layers(run, structure.groups, result)
        return self.finetune(dense, dense_quality, result, teacher)

    def finetune(
        self, dense: nn.Module, dense_quality: Row, result: PruneResult, teacher: nn.Module | None
    ) -> dict[str, Any]:
        """Measure, recover and fine-tune the pruned network, and save it. Return the report."""
        run, share = self.run, self.run.config.train.nb_epochs_rat
        dense_cost, cost = costs(run, dense, result.net, macs=(result.dense_macs, result.macs))
        dense_row, pruned_row = dense_quality | dense_cost, quality(run, result.net) | cost
        recovered = {name: row | cost for name, row in recover(run, result.net, dense).items()}
        before = final = [pruned_row, *recovered.values()][-1]
        facts: dict[str, Any] = {"output_error": result.output_error, "warnings": list(result.warnings)}
        if share > 0:
            settings = finetune_settings(run.config, share, run.device.type)
            tuned = fit(run, result.net, "finetune", settings, "finetune", teacher=teacher, keep_best=True)
            facts["finetune"] = best_entry(tuned)
            final = quality(run, result.net) | cost
        self.save(result.net)
        stages = {"dense": dense_row, "before_finetune": before, "pruned": final}
        rows = self.rows(stages, {"before recovery": pruned_row, **recovered} if recovered else {})
        budget = asked_and_reached(run, dense_row, final)
        for warning in (missed := budget_warnings(budget)):
            run.say(f"warning: {warning}")
        facts |= {"warnings": [*result.warnings, *missed], "budget": budget}
        return self.finish(stages, rows=rows, layers=layer_entries(result.layers), facts=facts)

    def rows(self, stages: dict[str, Row], recovery: dict[str, Row]) -> dict[str, Row]:
        """Return the rows of the table: the stages, in place of the second one the steps of a recovery."""
        rows: dict[str, Row] = {}
        for key, title in self.stages.items():
            rows |= recovery if recovery and key == "before_finetune" else {title: stages[key]}
        return rows
