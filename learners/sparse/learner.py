"""Sparsity: weights are masked in closed form or while they are trained; the network keeps its shape."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

from torch import Tensor, nn

from learners.context import RunContext
from learners.filter.images import labelled_batches
from learners.fitting import best_entry, fit
from learners.measuring import Row, accuracy, costs
from learners.pruning import PruningLearner
from learners.sparse.lottery import check_lottery, find_ticket
from learners.sparse.policies import asked_policy, told
from learners.start import train_dense
from learners.teacher import named_teacher, teacher_of
from learners.train_settings import finetune_settings, train_settings
from pocketprune.numerics.projections import SparseSet
from pocketprune.reporting.stages import COLUMNS, Column
from pocketprune.reporting.tables import count
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule
from pocketprune.sparsity.statistics import LayerRow
from pocketprune.sparsity.storing import packed_bytes, zero_share
from pocketprune.training.loop import TrainResult
from pocketprune.training.state import TrainSettings

MASKED, PULLED, TUNED = "sparse", "admm", "sparse_tune"  # the phases with masks, before them, and after ADMM


class SparseLearner(PruningLearner):
    """dense network -> masks on weights -> train, each measured on the test set."""

    columns: ClassVar[Mapping[str, Column]] = {
        **COLUMNS,
        "zeros": Column("zeros", "{:.2%}".format),
        "packed_bytes": Column("packed", lambda value: f"{count(value)}B"),
    }
    settings: ClassVar[tuple[str, ...]] = (*PruningLearner.settings, "sparsity")
    phases: ClassVar[tuple[str, ...]] = (MASKED, PULLED, TUNED, "lottery*")
    tuned: TrainResult | None = None
    """The training with masks, if there was one."""

    def policy(self, epochs: float) -> SparsityPolicy:
        """Return what masks are to do in a training of so many epochs."""
        return asked_policy(self.run.config, epochs)

    def train(self) -> dict[str, Any]:
        """Mask and train the network that the run starts with. Return the report."""
        run, method = self.run, self.run.config.sparsity.sp_method
        training = _training(run)
        policy = self.policy(0 if training is None or method != "level" else training.epochs)
        if method == "lottery":
            return self.lottery(policy, check_lottery(run, policy, training))
        start = self.start()
        net = run.net if start is None else start
        controller = controller_of(run, net, policy)  # before any work: it may be impossible
        named = named_teacher(run)
        self.claim()
        if start is None:
            train_dense(run, net)
        dense = copy.deepcopy(net)
        teacher = teacher_of(run, named, dense)
        if method == "admm":
            before = self.pull(controller, training, teacher)
        else:
            before = self.level(controller, training, teacher)
        return self.tell(dense, controller, before)

    def level(self, controller: SparsityController, training: TrainSettings | None, teacher: nn.Module | None) -> Row:
        """Mask by the schedule, and train. Return the row before the training, empty if there is nothing masked yet."""
        run, policy, before = self.run, controller.policy, {}
        if training is None or all(_is_at_once(rule) for rule in policy.rules):
            with run.timed("prune"):
                controller.set_levels([rule.schedule.final for rule in policy.rules])
                controller.freeze()
            before = self.row(controller.net)
        if training is not None:
            self.tune(controller, MASKED, training, teacher)
        return before

    def pull(self, controller: SparsityController, training: TrainSettings | None, teacher: nn.Module | None) -> Row:
        """Train towards sparse weights, mask, refit, and train what stays. Return the row before that training."""
        run, flags = self.run, self.run.config.sparsity
        if training is not None:
            rounds = AdmmSettings(rounds=flags.sp_admm_rounds, rho=flags.sp_rho, rho_growth=flags.sp_rho_growth)
            admm = Admm(controller.net, _sets(run, controller), rounds, run.recorder)
            first = replace(training, epochs=training.epochs * flags.sp_admm_share)
            fit(run, controller.net, PULLED, first, "prune", teacher=teacher, callbacks=[admm])
            run.say(f"ADMM: primal residual {admm.primal:.3g}, dual residual {admm.dual:.3g} after {admm.round} rounds")
            masked = admm.masked()
        else:
            own = controller.masks.weights()
            masked = {name: chosen.masked(own[name]) for name, chosen in _sets(run, controller).items()}
        with run.timed("prune"):
            controller.impose(masked, [x for x, _ in _seen(run)])
        before = self.row(controller.net)
        if training is not None:
            later = replace(training, epochs=training.epochs * (1 - flags.sp_admm_share))
            self.tune(controller, TUNED, later, teacher)
        return before

    def tune(
        self, controller: SparsityController, phase: str, settings: TrainSettings, teacher: nn.Module | None
    ) -> None:
        """Train with masks, and keep the best state under the last of them."""
        self.tuned = fit(
            self.run,
            controller.net,
            phase,
            settings,
            "finetune",
            teacher=teacher,
            callbacks=[SparsityCallback(controller)],
            keep_best=True,
            masks=controller,
        )

    def lottery(self, policy: SparsityPolicy, settings: TrainSettings) -> dict[str, Any]:
        """Train, prune, rewind, and train again, round by round."""
        start = self.start() if self.run.config.net.init_checkpoint else None
        self.claim(dense=False)
        dense, controller, rounds = find_ticket(self.run, self.run.net if start is None else start, policy, settings)
        return self.tell(dense, controller, {}, {"rounds": rounds})

    def row(self, net: nn.Module) -> Row:
        """Return how good a network is, and how sparse."""
        return accuracy(self.run, net) | {"zeros": zero_share(net), "packed_bytes": float(packed_bytes(net))}

    def tell(
        self, dense: nn.Module, controller: SparsityController, before: Row, facts: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Save the network, print what became of each layer, and write the report. Return it."""
        run, net = self.run, controller.net
        self.save(net)
        statistics = controller.statistics()
        run.say(f"\n{statistics}")
        dense_cost, cost = costs(run, dense, net)
        stages = {"dense": self.row(dense) | dense_cost, "before_finetune": before and before | cost}
        stages["pruned"] = self.row(net) | cost
        stages = {key: row for key, row in stages.items() if row}
        told = {} if self.tuned is None else {"finetune": best_entry(self.tuned)}
        return self.finish(stages, layers=[_entry(row) for row in statistics.layers], facts={**told, **(facts or {})})


def controller_of(run: RunContext, net: nn.Module, policy: SparsityPolicy) -> SparsityController:
    """Return the controller of a network. Raises UserError for a policy that cannot be carried out on it."""
    looks = any(rule.criterion == "obs" for rule in policy.rules)
    with told():
        return sparsify(net, policy, run.example, _seen(run) if looks else None)


def _is_at_once(rule: WeightRule) -> bool:
    return rule.ranking != "splicing" and rule.schedule.level(0) == rule.schedule.final


def _training(run: RunContext) -> TrainSettings | None:
    """Return how to train; a lottery's rounds are trainings from scratch."""
    share = run.config.train.nb_epochs_rat
    own = train_settings if run.config.sparsity.sp_method == "lottery" else finetune_settings
    return own(run.config, share, run.device.type) if share > 0 else None


def _sets(run: RunContext, controller: SparsityController) -> dict[str, SparseSet]:
    kind = run.config.sparsity.sp_admm_set
    return {
        name: SparseSet(kind, rule.schedule.final, rule.shape)
        for rule, names in zip(controller.policy.rules, controller.layers, strict=True)
        for name in names
    }


def _seen(run: RunContext) -> list[Any]:
    """Return the images that the closed form looks at."""
    return labelled_batches(run, run.config.sparsity.sp_nb_batches * run.config.data.batch_size)


def held_out(run: RunContext, batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return shuffled validation images with their labels, so many batches at most."""
    split = run.dataset.val.batches(run.config.data.batch_size_eval, seed=run.config.run.seed, shuffle=True)
    return [(x.to(run.device), labels.to(run.device)) for x, labels in islice(split, batches)]


def _entry(row: LayerRow) -> dict[str, Any]:
    """Return what report.json says of a layer; its channels are what they were."""
    return {"name": row.name, "weights": row.weights, "masked": row.masked, "level": row.level, "note": row.pattern}
