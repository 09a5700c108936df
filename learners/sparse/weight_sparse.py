"""PocketFlow's weight-sparse learner: a share of zeros split over the layers, reached by a ramp while training."""

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from config import Config
from learners.channel.search_watch import SearchWatch
from learners.context import RunContext
from learners.filter.images import labelled_batches
from learners.sparse.learner import SparseLearner, held_out
from learners.sparse.policies import budget_told_as
from learners.sparse.ramp import ramp
from learners.start import train_dense
from learners.teacher import named_teacher, teacher_of
from learners.train_settings import finetune_settings
from pocketprune import analyse
from pocketprune.common.errors import UserError
from pocketprune.search import Budget, DdpgSettings, Hooks, Problem, SearchSettings, search
from pocketprune.search.ddpg import check_rollouts
from pocketprune.sparsity.controller import sparsify
from pocketprune.sparsity.layers import sparse_layers
from pocketprune.sparsity.policy import SparsityPolicy, WeightRule
from pocketprune.sparsity.splits import MOST, SparsityEnvironment, heuristic_levels
from pocketprune.training.batches import steps_per_epoch
from pocketprune.training.distributed import is_main
from pocketprune.training.state import TrainSettings

MASKED, SEARCHED = "weight_sparse", "weight_sparse_search"  # the phases


class WeightSparseLearner(SparseLearner):
    """dense network -> a level for each layer -> masks by a ramp while training."""

    settings = (*SparseLearner.settings, "weight_sparse", "ddpg")
    phases = (MASKED, SEARCHED)

    def train(self) -> dict[str, Any]:
        """Split the share of zeros over the layers, and train with masks. Return the report."""
        run = self.run
        training = _check(run)
        start = self.start()
        net = run.net if start is None else start
        named = named_teacher(run)
        self.claim()
        if start is None:
            train_dense(run, net)
        dense = copy.deepcopy(net)
        teacher = teacher_of(run, named, dense)
        levels = _levels(run, net)
        controller = sparsify(net, _policy(run, levels, training))
        if training is None:
            controller.set_levels([rule.schedule.final for rule in controller.policy.rules])
        else:
            self.tune(controller, MASKED, training, teacher)
        return self.tell(dense, controller, {})


def _check(run: RunContext) -> TrainSettings | None:
    """Return the settings of the training with masks. Raises UserError for flags that contradict each other."""
    flags, share = run.config.weight_sparse, run.config.train.nb_epochs_rat
    if flags.ws_prune_ratio > MOST:
        raise UserError(f"{flags.ws_prune_ratio:g} given; at most {MOST} is accepted", argument="budget.level")
    if flags.ws_iter_ratio_end <= flags.ws_iter_ratio_beg:
        raise UserError(
            f"{flags.ws_iter_ratio_end:g} given; expected more than --ws_iter_ratio_beg={flags.ws_iter_ratio_beg:g}",
            argument="ramp.end",
        )
    if flags.ws_prune_ratio_prtl == "optimal" and flags.ws_search == "ddpg":
        check_rollouts(search_settings(run.config))
    return finetune_settings(run.config, share, run.device.type) if share > 0 else None


def _policy(run: RunContext, levels: Mapping[str, float], training: TrainSettings | None) -> SparsityPolicy:
    flags = run.config.weight_sparse
    per_epoch = steps_per_epoch(run.dataset.train, training) if training else 1
    steps = max(1, round(training.epochs * per_epoch)) if training else 1
    rules = tuple(
        WeightRule(
            layers=(name,),
            schedule=ramp(
                level,
                steps,
                beg=flags.ws_iter_ratio_beg,
                end=flags.ws_iter_ratio_end,
                exponent=flags.ws_prune_ratio_exp,
                every=flags.ws_mask_update_step,
            ),
        )
        for name, level in levels.items()
        if level > 0
    )
    return SparsityPolicy(rules=rules, mask="soft", seed=run.config.run.seed)


def _levels(run: RunContext, net: nn.Module) -> dict[str, float]:
    """Return the level of each layer."""
    flags, layers = run.config.weight_sparse, sparse_layers(net)
    ratio = flags.ws_prune_ratio
    if flags.ws_prune_ratio_prtl == "uniform":
        return dict.fromkeys(layers, ratio)
    if flags.ws_prune_ratio_prtl == "heurist":
        sizes = [weight.numel() for weight in layers.values()]
        return dict(zip(layers, heuristic_levels(sizes, ratio), strict=True))
    with run.timed("search"):
        return _searched(run, net, list(layers))


def _searched(run: RunContext, net: nn.Module, layers: list[str]) -> dict[str, float]:
    """Return the levels that a search finds best on validation images; layers it does not know get the mean one."""
    flags = run.config.weight_sparse
    calibration = [x for x, _ in labelled_batches(run, flags.ws_nb_iters_feval * run.config.data.batch_size)]
    env = SparsityEnvironment(
        analyse(net, run.example), layers, flags.ws_prune_ratio, calibration, held_out(run, flags.ws_nb_iters_feval)
    )
    budget = Budget(kind="params", share=1 - flags.ws_prune_ratio)
    problem = Problem(env, budget)
    checkpoints = run.checkpoints(SEARCHED)
    found = checkpoints.latest()

    def save(state: dict[str, Any]) -> None:
        checkpoints.save(state, len(state["history"]))

    with SearchWatch(run.recorder, problem, SEARCHED) as watch, budget_told_as("budget.level"):
        result = search(
            env,
            budget,
            method=flags.ws_search,
            settings=search_settings(run.config),
            seed=run.config.run.seed,
            hooks=Hooks(
                csv_path=run.workdir / "search.csv" if is_main() else None,
                save=save if is_main() else None,
                resume=None if found is None else found.state,
                progress=watch,
            ),
        )
    run.say(
        f"{flags.ws_search}: {len(result.history)} roll-outs; best on the validation images "
        f"{result.score.accuracy:.2%} with {1 - result.share:.2%} zeros"
    )
    return dict.fromkeys(layers, flags.ws_prune_ratio) | env.levels(result.values)


def search_settings(config: Config) -> SearchSettings:
    """Return the flags as the search takes them."""
    flags = config.weight_sparse
    agent = DdpgSettings(**{f.name: getattr(config.ddpg, f"ddpg_{f.name}") for f in fields(DdpgSettings)})
    return SearchSettings(
        nb_rlouts=flags.ws_nb_rlouts,
        nb_rlouts_min=flags.ws_nb_rlouts_min,
        swaps=min(SearchSettings.swaps, flags.ws_nb_rlouts),
        ddpg=agent,
    )
