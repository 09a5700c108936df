"""Full precision: train the network as it is, or fine-tune one that was pruned before."""

from typing import Any, ClassVar

from torch import nn

from learners import workdir
from learners.base import Learner
from learners.fitting import best_entry, fit
from learners.measuring import accuracy, costs
from learners.start import DENSE, load_start, train_dense
from learners.teacher import named_teacher
from learners.train_settings import finetune_settings
from pocketprune.common.errors import UserError
from pocketprune.common.steps import steps_of
from pocketprune.training.distributed import is_main

RETRAIN = "retrain"  # the phase in which a network that was pruned before is trained


class FullPrecisionLearner(Learner):
    """train -> measure. Starts from --init_checkpoint where one is given; a pruned network keeps its steps."""

    stages: ClassVar = {"dense": "dense", "start": "start", "trained": "final"}
    phases = (DENSE, RETRAIN)

    def train(self) -> dict[str, Any]:
        """Train the network that the run starts with. Return the report."""
        run, share = self.run, self.run.config.train.nb_epochs_rat
        if share == 0:
            raise UserError("--nb_epochs_rat=0: expected a number > 0 with --learner full-prec")
        given = self.start() if run.config.net.init_checkpoint else None
        start = run.net if given is None else given
        teacher = self.teacher(start)
        self.claim(dense=not steps_of(start), teacher=teacher is not None)
        if steps_of(start):
            return self.retrain(start, share, teacher)
        if is_main():
            self.artifact.unlink(missing_ok=True)  # of a run that --overwrite has forgotten
        net = train_dense(run, start, share, teacher)
        return self.finish({"dense": accuracy(run, net) | costs(run, net)[0]})

    def retrain(self, net: nn.Module, share: float, teacher: nn.Module | None) -> dict[str, Any]:
        """Train a network that was pruned before, measured before and after."""
        run = self.run
        before = accuracy(run, net)
        settings = finetune_settings(run.config, share, run.device.type)
        tuned = fit(run, net, RETRAIN, settings, "train", teacher=teacher, keep_best=True)
        self.save(net)
        cost = costs(run, net)[0]
        stages = {"start": before | cost, "trained": accuracy(run, net) | cost}
        return self.finish(stages, facts={"finetune": best_entry(tuned)})

    def teacher(self, start: nn.Module) -> nn.Module | None:
        """Return the teacher asked for: --dst_checkpoint's network, or the one that --init_checkpoint gave."""
        if not self.run.config.distillation.enbl_dst:
            return None
        named = named_teacher(self.run)
        if named is None and not self.run.config.net.init_checkpoint:
            raise UserError(
                "--enbl_dst: with --learner full-prec the teacher's weights are needed, --dst_checkpoint or "
                "--init_checkpoint"
            )
        return start if named is None else named

    def result(self, net: nn.Module) -> str:
        """Return which of the stages the trained network is."""
        return "trained" if steps_of(net) else "dense"

    def trained_net(self) -> nn.Module:
        """Return what `train` ended with, or the network of --init_checkpoint if the workdir has no run from it."""
        given = self.run.config.net.init_checkpoint
        same = not given or given == workdir.saved_flags(self.run.config).get("init_checkpoint")
        if same and self.artifact.exists():
            return super().trained_net()
        net = load_start(self.run)
        if net is None:
            raise UserError(
                f"--workdir={self.run.workdir}: holds no trained network; train one first (--exec_mode train) or "
                "give --init_checkpoint"
            )
        return net
