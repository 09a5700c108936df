"""Full precision: train the network as it is."""

from torch import nn

from learners.learner import Learner
from pocketprune.errors import UserError


class FullPrecisionLearner(Learner):
    """train -> measure. Starts from --init_checkpoint where one is given."""

    def train(self) -> dict:
        share = self.config.train.nb_epochs_rat
        if share == 0:
            raise UserError("--nb_epochs_rat=0: expected a number > 0 with --learner full-prec")
        if self.config.net.init_checkpoint:
            self.load_dense()
        self.train_dense(share)
        row = self.accuracy(self.net) | self.costs(self.net)[0]
        return self.finish({"dense": row, "layers": []})

    def trained_net(self) -> nn.Module:
        if not self.load_dense():
            raise UserError(
                f"--workdir={self.workdir}: holds no trained network; train one first (--exec_mode train) or "
                "give --init_checkpoint"
            )
        return self.net
