"""NNI's ADMM, lottery ticket and AutoCompress pruners."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.options import COUNT, check_option
from pocketprune.compat.nni.agp import base_pruner
from pocketprune.compat.nni.collecting import Trainer, run_trainer
from pocketprune.compat.nni.one_shot import LevelPruner
from pocketprune.compat.nni.pruner import BuiltOn
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.projections import SparseSet
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.auto_compress import AutoCompressSettings, auto_compress
from pocketprune.sparsity.lottery import round_levels

Config = Sequence[Mapping[str, Any]]
SETS = {"level": "weights", "l1": "filters", "l2": "filters"}
"""Base algorithm -> what ADMM pulls to zero."""


class ADMMPruner(BuiltOn):
    """Trains towards sparse weights, then masks by the base algorithm.

    The penalty is NNI's with the squared norm of the method; it is added to the gradients, so that any training works.

    Args:
        model, config_list: as for `Pruner`.
        trainer: the training: (model, optimizer, criterion[, epoch]).
        criterion: the loss that it is given.
        num_iterations: rounds of ADMM.
        epochs_per_iteration: epochs of training in each.
        row: the weight of the distance, NNI's name for rho.
        base_algo: "level", "l1" or "l2".
        optimizer: that of the training.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        trainer: Trainer,
        criterion: Any = None,
        num_iterations: int = 30,
        epochs_per_iteration: int = 5,
        row: float = 1e-4,
        base_algo: str = "l1",
        optimizer: Any = None,
    ) -> None:
        if base_algo not in SETS:
            raise UserError(f"'{base_algo}' given; {', '.join(SETS)} are accepted", argument="base_algo")
        check_option("num_iterations", num_iterations, COUNT)
        check_option("epochs_per_iteration", epochs_per_iteration, COUNT)
        self._base = base_pruner(base_algo, model, config_list, optimizer)
        self._trainer, self._loss, self._optimizer = trainer, criterion, optimizer
        self._epochs = epochs_per_iteration
        sets = {t.name: SparseSet(SETS[base_algo], t.sparsity) for t in self._base.targets}
        self.bound_model = model
        self.admm = Admm(model, sets, AdmmSettings(rounds=num_iterations, rho=row, rho_growth=1.0))

    def compress(self) -> nn.Module:
        """Train in rounds, then mask. Return the network."""
        for number in range(self.admm.settings.rounds):
            with pulled(self.admm):
                for epoch in range(self._epochs):
                    run_trainer(
                        self._trainer, self.bound_model, self._optimizer, self._loss, number * self._epochs + epoch
                    )
            self.admm.end_round(number)
        return self._base.compress()


@contextmanager
def pulled(admm: Admm) -> Iterator[None]:
    """Add the penalty's gradient to those of the weights inside."""

    def hook(name: str, weight: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: gradient + admm.gradient(name, weight)

    with ExitStack() as hooks:
        for name, weight in admm.weights().items():
            hooks.callback(weight.register_hook(hook(name, weight)).remove)
        yield


class LotteryTicketPruner(LevelPruner):
    """Masks the smallest weights in rounds, and resets the others to what they were at first.

        pruner = LotteryTicketPruner(model, config_list, optimizer)
        pruner.compress()
        for _ in pruner.get_prune_iterations():
            pruner.prune_iteration_start()
            ...  # train

    Args:
        model, config_list, optimizer: as for `Pruner`; entries have `prune_iterations`, the same in all.
        lr_scheduler: is reset with the optimizer.
        reset_weights: whether weights are.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        reset_weights: bool = True,
    ) -> None:
        given = {entry.get("prune_iterations", 5) for entry in config_list if isinstance(entry, Mapping)}
        plain = [
            {key: value for key, value in entry.items() if key != "prune_iterations"}
            if isinstance(entry, Mapping)
            else entry
            for entry in config_list
        ]
        if len(given) > 1:
            raise UserError(f"config_list: prune_iterations {sorted(given)} given; one number for all is accepted")
        super().__init__(model, plain, optimizer)
        self._rounds = given.pop()
        check_option("prune_iterations", self._rounds, COUNT)
        self._reset, self._round = reset_weights, -1
        self._first = copy.deepcopy(
            [part.state_dict() if part is not None else None for part in (model, optimizer, lr_scheduler)]
        )
        self._lr_scheduler = lr_scheduler

    def compress(self) -> nn.Module:
        """Return the network; `prune_iteration_start` masks."""
        return self.bound_model

    def get_prune_iterations(self) -> range:
        """Return the numbers of the rounds; the first one trains the whole network."""
        return range(self._rounds + 1)

    def prune_iteration_start(self) -> None:
        """Mask the next share, and reset."""
        self._round += 1
        if self._round == 0:
            return
        if self._round > self._rounds:
            raise UserError(f"a round {self._round} asked for; there are {self._rounds}", argument="prune_iterations")
        self.update_mask(
            {t.entry: round_levels(t.sparsity, self._rounds)[self._round - 1] for t in self.targets if t.sparsity}
        )
        parts = (self.bound_model if self._reset else None, self.optimizer, self._lr_scheduler)
        for part, state in zip(parts, self._first, strict=True):
            if part is not None:
                part.load_state_dict(copy.deepcopy(state))
        self._masks.enforce()


class AutoCompressPruner:
    """Rounds of annealing, ADMM and real thinning. The sparsity is the share of the MACs that goes.

    Args:
        model, config_list: as for `Pruner`; one entry.
        trainer: the training: (model, optimizer, criterion[, epoch]).
        evaluator: (model) -> a number.
        dummy_input: taken for NNI's sake.
        criterion: the loss that the trainer is given.
        num_iterations: rounds.
        admm_num_iterations, admm_epochs_per_iteration, row: as for `ADMMPruner`.
        batches: training images, on which channels are chosen and layers refitted.
        optimizer: makes an optimizer of parameters; the networks get smaller, so that one alone does not do.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Config,
        trainer: Trainer,
        evaluator: Callable[[nn.Module], float],
        dummy_input: ExampleInputs | None = None,
        criterion: Any = None,
        num_iterations: int = 3,
        admm_num_iterations: int = 30,
        admm_epochs_per_iteration: int = 5,
        row: float = 1e-4,
        *,
        batches: Sequence[Tensor] | None = None,
        optimizer: Callable[[Any], Any] | None = None,
    ) -> None:
        if not batches:
            raise UserError("none given; training images are needed to refit layers", argument="batches")
        targets = base_pruner("l1", model, config_list).targets
        if len({target.entry for target in targets}) > 1:
            raise UserError("config_list: one entry is accepted; the search divides its share over the layers")
        self._share, self._batches, self._evaluator = 1 - targets[0].sparsity, list(batches), evaluator
        self._trainer, self._loss, self._optimizer = trainer, criterion, optimizer
        self._rounds = AutoCompressSettings(rounds=num_iterations)
        self._admm = AdmmSettings(rounds=admm_num_iterations, rho=row, rho_growth=1.0)
        self._epochs = admm_epochs_per_iteration
        self.bound_model = model

    def compress(self) -> nn.Module:
        """Return the smaller network; the one given stays as it is."""
        self.bound_model, _ = auto_compress(
            self.bound_model, self._batches, self._share, self._evaluator, self._train,
            settings=self._rounds, admm=self._admm,
        )  # fmt: skip
        return self.bound_model

    def _train(self, net: nn.Module, admm: Admm, _: int) -> None:
        optimizer = None if self._optimizer is None else self._optimizer(net.parameters())
        for number in range(self._admm.rounds):
            with pulled(admm):
                for epoch in range(self._epochs):
                    run_trainer(self._trainer, net, optimizer, self._loss, number * self._epochs + epoch)
            admm.end_round(number)
