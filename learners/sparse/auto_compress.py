"""AutoCompress: rounds of a search for ratios, ADMM towards them, and real thinning, then fine-tuning."""

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from learners.fitting import best_entry, fit
from learners.measuring import accuracy, costs
from learners.pruning import PruningLearner, calibration_batches
from learners.sparse.learner import held_out
from learners.sparse.policies import budget_told_as
from learners.start import train_dense
from learners.train_settings import finetune_settings
from pocketprune import analyse
from pocketprune.common.errors import UserError
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.auto_compress import AutoCompressSettings, auto_compress

HELD_OUT = 25  # validation batches that score a network


class AutoCompressLearner(PruningLearner):
    """dense network -> rounds of search, ADMM and thinning -> fine-tune, each measured on the test set."""

    settings = (*PruningLearner.settings, "channel_pruning", "sparsity", "auto_compress")
    phases = ("auto*",)

    def train(self) -> dict[str, Any]:
        """Compress the network that the run starts with. Return the report."""
        run, flags, share = self.run, self.run.config.auto_compress, self.run.config.train.nb_epochs_rat
        if share == 0:
            raise UserError("--nb_epochs_rat=0: expected a number > 0 with --learner auto-compress, as ADMM trains")
        start = self.start()
        net = run.net if start is None else start
        analyse(net, run.example)  # before any work: it may be impossible
        self.claim()
        if start is None:
            train_dense(run, net)
        dense, full = copy.deepcopy(net), finetune_settings(run.config, share, run.device.type)
        each = replace(full, epochs=full.epochs * flags.ac_admm_share / flags.ac_rounds)

        def tune(smaller: nn.Module, admm: Admm, number: int) -> None:
            fit(run, smaller, f"auto_{number}", each, "prune", callbacks=[admm])

        with run.timed("search"), budget_told_as("auto.share"):
            net, rounds = auto_compress(
                net,
                calibration_batches(run),
                flags.ac_preserve_ratio,
                held_out(run, HELD_OUT),
                tune,
                settings=_settings(self),
                admm=_admm(self),
                recorder=run.recorder,
            )
        for number, done in enumerate(rounds):
            run.say(f"Round {number + 1}: {done.share:.2%} of the MACs; primal residual {done.primal:.3g}")
        dense_cost, cost = costs(run, dense, net)
        stages = {"dense": accuracy(run, dense) | dense_cost, "before_finetune": accuracy(run, net) | cost}
        last = replace(full, epochs=full.epochs * (1 - flags.ac_admm_share))
        tuned = fit(run, net, "auto_finetune", last, "finetune", keep_best=True)
        stages["pruned"] = accuracy(run, net) | cost
        self.save(net)
        return self.finish(stages, facts={"rounds": [vars(done) for done in rounds], "finetune": best_entry(tuned)})


def _settings(learner: AutoCompressLearner) -> AutoCompressSettings:
    flags = learner.run.config.auto_compress
    return AutoCompressSettings(
        rounds=flags.ac_rounds,
        search=flags.ac_search,
        start=flags.ac_search_start,
        nb_rlouts=flags.ac_nb_rlouts,
        selection=flags.ac_selection,
    )


def _admm(learner: AutoCompressLearner) -> AdmmSettings:
    flags = learner.run.config.sparsity
    return AdmmSettings(rounds=flags.sp_admm_rounds, rho=flags.sp_rho, rho_growth=flags.sp_rho_growth)
