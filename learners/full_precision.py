"""Full precision: train the network as it is."""

from torch import nn

from learners.base import Learner
from learners.teacher import named_teacher
from pocketprune.common.errors import UserError


class FullPrecisionLearner(Learner):
    """train -> measure. Starts from --init_checkpoint where one is given."""

    def train(self) -> dict:
        share = self.config.train.nb_epochs_rat
        if share == 0:
            raise UserError("--nb_epochs_rat=0: expected a number > 0 with --learner full-prec")
        if self.config.net.init_checkpoint:
            self.load_dense()
        teacher = self.teacher()
        self.claim()
        self.train_dense(share, teacher)
        row = self.accuracy(self.net) | self.costs(self.net)[0]
        return self.finish({"dense": row, "layers": []})

    def teacher(self) -> nn.Module | None:
        """Of the distillation asked for: --dst_checkpoint's network, or this one as --init_checkpoint left it."""
        if not self.config.distillation.enbl_dst:
            return None
        teacher = named_teacher(self.config, self.dataset, self.example)
        if teacher is None and not self.config.net.init_checkpoint:
            raise UserError(
                "--enbl_dst: with --learner full-prec the teacher's weights are needed, --dst_checkpoint or "
                "--init_checkpoint"
            )
        return teacher or self.net

    def trained_net(self) -> nn.Module:
        if not self.load_dense():
            raise UserError(
                f"--workdir={self.workdir}: holds no trained network; train one first (--exec_mode train) or "
                "give --init_checkpoint"
            )
        return self.net
