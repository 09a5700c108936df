"""Filter pruning while training: channels are masked bit by bit, the others learn to do without them.

Criteria, schedules and masks are those of `pocketprune.compress`.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from learners.context import RunContext
from learners.filter import level
from learners.filter.distiller import asked_schedule
from learners.filter.images import labelled_batches
from learners.filter.policies import TOLERANCE, asked_policy, check_target_met, told, write_template
from learners.filter.ranking import RANKED, learn
from learners.fitting import best_entry, fit
from learners.listing import plot_groups, structure_of
from learners.measuring import Row, accuracy, costs
from learners.pruning import PruningLearner
from learners.quantized.masking import quantisers
from learners.start import train_dense
from learners.teacher import named_teacher, teacher_of
from learners.train_settings import finetune_settings, train_settings
from pocketprune import Controller, Policy, compress, find_channel_groups
from pocketprune.common.modes import evaluation_mode
from pocketprune.compression.callback import callback
from pocketprune.compression.evidence import STREAMED
from pocketprune.compression.latency import MeasuredLatency
from pocketprune.compression.level_search import Trial
from pocketprune.compression.questions import PARTS
from pocketprune.compression.statistics import GroupRow
from pocketprune.reporting.tables import group_listing
from pocketprune.training.batch_norm import reestimate_batch_norm, shift_batch_norm
from pocketprune.training.batches import steps_per_epoch
from pocketprune.training.distributed import is_main
from pocketprune.training.loop import TrainResult
from pocketprune.training.metrics import evaluate
from pocketprune.training.state import TrainSettings

MASKED, TUNED = "filter", "filter_tune"  # the phases before and after the removal
LATENCY = "latency.json"  # the table of measured times, in the workdir
FEW = 256  # images; more of them say the statistics better than those of the dense network do
AGREE = 1e-3  # largest difference of outputs, relative to the largest one, that rounding explains


class FilterPruningLearner(PruningLearner):
    """dense network -> train with masks -> batch-norm statistics -> remove -> (refit) -> (train), each measured."""

    stages: ClassVar = {
        "dense": "dense",
        "masked": "masked",
        "removed": "removed",
        "refitted": "refitted",
        "pruned": "final",
    }
    settings = (*PruningLearner.settings, "filter_pruning")
    phases = (RANKED, MASKED, level.SEARCHED, f"{level.TRIED}*", TUNED)
    tried: Sequence[Trial] = ()
    """The levels that were tried where the largest one was looked for."""
    tuned: TrainResult | None = None
    """The training after the removal, if there was one."""

    def train(self) -> dict[str, Any]:
        """Mask, train and thin the network that the run starts with. Return the report."""
        run = self.run
        start = self.start()
        net = run.net if start is None else start
        masking, tuning, policy = _asked(run, net)
        level.check(run, policy, masking)
        latency = _latency(run, net, policy)
        controller = _controller(run, net, policy, latency)  # before any work: it may be impossible
        named = named_teacher(run)
        self.claim()
        if latency is not None:
            latency.save(run.workdir / LATENCY)
        if start is None:
            train_dense(run, net)
        dense = copy.deepcopy(net)
        teacher = teacher_of(run, named, dense)
        learn(run, controller)
        self.mask(controller, masking, teacher)
        if run.config.filter_pruning.fp_max_accuracy_drop is not None and masking is not None:
            self.tried = level.largest_level(run, controller, masking, dense, teacher)
        return self.thin(dense, controller, tuning, teacher)

    def mask(self, controller: Controller, settings: TrainSettings | None, teacher: nn.Module | None) -> None:
        """Train the network with masks, or go on with that; without settings, mask what is asked for at once."""
        run = self.run
        if settings is not None:
            parts = [callback(controller), *quantisers(run, controller.net)]
            fit(run, controller.net, MASKED, settings, "finetune", teacher=teacher, callbacks=parts)
        final = [rule.schedule.final for rule in controller.policy.rules]
        short = any(abs(a - b) > TOLERANCE for a, b in zip(controller.levels, final, strict=True))
        if short:  # without a training, or where a schedule masks more when it removes
            with run.timed("prune"):
                controller.set_levels(final)

    def thin(
        self, dense: nn.Module, controller: Controller, tuning: TrainSettings | None, teacher: nn.Module | None
    ) -> dict[str, Any]:
        """Remove what is masked, train the rest if asked for, measure everything. Return the report."""
        run, flags, masked = self.run, self.run.config.filter_pruning, controller.net
        nets = {"dense": dense, "masked": masked}
        with run.timed("prune"):
            refitted = controller.remove(refit=_seen(run)) if flags.fp_refit == "removal" else None
            if flags.fp_bn_images:
                self._adapt(masked, dense)
            nets["removed"] = final = controller.remove()
        run.say(_agreement(masked, final, run.images(run.config.data.batch_size_eval), controller.inexact()))
        if refitted is not None:
            nets["refitted"] = refitted
            final = _better(run, final, refitted)
        rows = costs(run, *nets.values())
        stages = {key: accuracy(run, net) | cost for (key, net), cost in zip(nets.items(), rows, strict=True)}
        key = next(key for key, net in nets.items() if net is final)
        stages["pruned"] = stages[key]
        if tuning is not None:
            self.tuned = fit(run, final, TUNED, tuning, "finetune", teacher=teacher, keep_best=True)
            stages["pruned"] = stages[key] | accuracy(run, final)
        self.save(final)
        return self.tell(dense, controller, final, stages)

    def _adapt(self, masked: nn.Module, dense: nn.Module) -> None:
        """Take the batch-norm statistics anew; of few images only what the masks changed, if nothing was trained."""
        run, flags = self.run, self.run.config.filter_pruning
        images = [x for x, _ in labelled_batches(run, flags.fp_bn_images)]
        if flags.fp_tune_share == 1 and flags.fp_bn_images < FEW:
            shift_batch_norm(masked, dense, images)
        else:
            reestimate_batch_norm(masked, images)

    def tell(
        self, dense: nn.Module, controller: Controller, final: nn.Module, stages: dict[str, Row]
    ) -> dict[str, Any]:
        """Print what became of each channel group, and write the report. Return it."""
        run, statistics = self.run, controller.statistics()
        run.say(f"\n{statistics}")
        if run.config.run.plot:
            plot_groups(run, find_channel_groups(dense, run.example), final)
        layers = [_entry(group) for group in statistics.groups]
        facts = level.told(self.tried)
        if self.tuned is not None:
            facts["finetune"] = best_entry(self.tuned)
        return self.finish(stages, layers=layers, facts=facts)

    def layers(self) -> None:
        """Show the channel groups that can be pruned, and write a policy to edit."""
        run, structure = self.run, structure_of(self.run)
        path = run.workdir / "policy_template.json"
        if is_main():
            write_template(path, structure.groups)
        run.say(group_listing(structure.groups))
        plot_groups(run, structure.groups)
        run.say(f"\nA policy with one rule for all of them stands in {path}. Edit it, then prune with")
        run.say(f"  --learner filter --fp_policy {path}")


def _entry(group: GroupRow) -> dict[str, Any]:
    """Return what report.json says of a channel group; errors are those of a reconstruction, which is none here."""
    return {
        "name": group.name,
        "channels": group.channels,
        "kept": group.kept,
        "preserve_ratio": group.kept / group.channels,
        "error_before": None,
        "error_after": None,
        "note": group.reason,
    }


def _asked(run: RunContext, net: nn.Module) -> tuple[TrainSettings | None, TrainSettings | None, Policy]:
    """Return the trainings before and after the removal, None where there is none, and the policy."""
    if run.config.filter_pruning.compress:
        return asked_schedule(run, net)
    masking, tuning = _trainings(run)
    return masking, tuning, _policy(run, masking)


def _trainings(run: RunContext) -> tuple[TrainSettings | None, TrainSettings | None]:
    """Return the settings of the training before and after the removal; None where there is none."""
    share, later = run.config.train.nb_epochs_rat, run.config.filter_pruning.fp_tune_share
    device, masked, tuned = run.device.type, share * (1 - later), share * later
    before = train_settings(run.config, masked, device) if masked > 0 else None
    after = finetune_settings(run.config, tuned, device) if tuned > 0 else None
    return before, after


def _policy(run: RunContext, masking: TrainSettings | None) -> Policy:
    """Return the policy asked for, which ends where it should. Raises UserError where it does not."""
    if masking is None:
        return asked_policy(run.config, 1)
    per_epoch = steps_per_epoch(run.dataset.train, masking)
    steps = max(1, round(masking.epochs * per_epoch))
    policy = asked_policy(run.config, math.ceil(steps / per_epoch))
    check_target_met(run.config, policy, steps, per_epoch)
    return policy


def _latency(run: RunContext, net: nn.Module, policy: Policy) -> MeasuredLatency | None:
    """Return what a share of the latency is of, if a rule asks for one; times measured before are used again."""
    if all(rule.share_of != "latency" for rule in policy.rules):
        return None
    return MeasuredLatency(
        net,
        run.example,
        batch=run.config.run.latency_batch,
        path=run.workdir / LATENCY,
        attention=policy.attention,
        allow_inexact=policy.allow_inexact,
    )


def _controller(run: RunContext, net: nn.Module, policy: Policy, latency: MeasuredLatency | None) -> Controller:
    """Return the controller of a network. Raises UserError for a policy that cannot be carried out on it."""
    looks = policy.refit or any(PARTS[rule.criterion] in STREAMED for rule in policy.rules)
    with told(run.config):
        return compress(net, run.example, policy, _seen(run) if looks else None, cost=latency)


def _seen(run: RunContext) -> list[tuple[Tensor, Tensor]]:
    """Return the images that criteria and refits look at."""
    return labelled_batches(run, run.config.filter_pruning.fp_nb_batches * run.config.data.batch_size)


def _agreement(masked: nn.Module, removed: nn.Module, images: Tensor, inexact: Sequence[str]) -> str:
    """Return a line that says whether two networks compute the same, or which groups are normalised otherwise."""
    with torch.no_grad(), evaluation_mode(masked), evaluation_mode(removed):
        expected, found = masked(images), removed(images)
    difference = float((found - expected).abs().max() / expected.abs().max())
    verdict = "agree" if difference <= AGREE else "do NOT agree"
    if inexact:
        verdict = f"need not agree, as a norm mixes channels of {', '.join(inexact)}"
    return f"Masked and removed {verdict}: their outputs differ by at most {difference:.1e} of the largest one"


def _better(run: RunContext, removed: nn.Module, refitted: nn.Module) -> nn.Module:
    """Return the network with the lower loss on the validation images; where they are equal, the first."""
    batch = run.config.data.batch_size_eval
    with run.timed("prune"):
        losses = [evaluate(net, run.dataset.val, batch, device=run.device).loss for net in (removed, refitted)]
    kept = losses[1] < losses[0]
    run.say(
        f"Refit {'kept' if kept else 'left out'}: loss on the validation images {losses[1]:.4f} with it, "
        f"{losses[0]:.4f} without"
    )
    return refitted if kept else removed
