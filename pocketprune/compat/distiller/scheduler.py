"""Distiller's `CompressionScheduler`: a schedule carried out in one's own training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.wrappers import unwrapped
from pocketprune.compat.distiller.building import Plan, plan_for
from pocketprune.compat.distiller.rates import scheduler_for
from pocketprune.compat.distiller.reading import Document, read_document
from pocketprune.compression.controller import Controller, compress
from pocketprune.compression.questions import Loss
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.in_place import become_thinner

INPUTS = {"imagenet": (3, 224, 224), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "mnist": (1, 28, 28)}
"""Distiller's data sets -> (C, H, W)."""


def file_config(
    model: nn.Module,
    optimizer: Optimizer | None,
    filename: str | Path,
    scheduler: CompressionScheduler | None = None,
    resumed_epoch: int | None = None,
    *,
    dummy_input: ExampleInputs | None = None,
    batches: Iterable[Any] | None = None,
    loss: Loss = F.cross_entropy,
) -> CompressionScheduler:
    """Return the scheduler that a YAML file describes.

    Args:
        model: the network, in data parallelism's wrapper or not.
        optimizer: of its parameters; learning rates are set in it, and it follows the removal of channels.
        filename: the schedule.
        scheduler: an earlier one, whose state is taken over.
        resumed_epoch: taken for Distiller's sake; `load_state_dict` says where a schedule goes on.
        dummy_input: an input; by default of the shape of the data set that an extension names.
        batches: inputs, or pairs of inputs and labels, for pruners by activations or gradients.
        loss: (output, labels) -> scalar, for pruners by gradients.

    Raises:
        UserError: a fault in the file, told with its line, or no dummy input.
    """
    found = _scheduler(model, optimizer, read_document(filename), dummy_input, batches, loss)
    if scheduler is not None:
        found.load_state_dict(scheduler.state_dict())
    return found


def dict_config(
    model: nn.Module,
    optimizer: Optimizer | None,
    sched_dict: Mapping[str, Any],
    *,
    dummy_input: ExampleInputs | None = None,
    batches: Iterable[Any] | None = None,
    loss: Loss = F.cross_entropy,
) -> CompressionScheduler:
    """Return the scheduler that a dict describes; arguments and errors are those of `file_config`."""
    return _scheduler(model, optimizer, Document(dict(sched_dict), {}), dummy_input, batches, loss)


def _scheduler(
    model: nn.Module,
    optimizer: Optimizer | None,
    document: Document,
    dummy_input: ExampleInputs | None,
    batches: Iterable[Any] | None,
    loss: Loss,
) -> CompressionScheduler:
    net = unwrapped(model)
    example = _dummy_input(document, net) if dummy_input is None else dummy_input
    plan = plan_for(document, analyse(net, example))
    controller = None if plan.policy is None else compress(net, example, plan.policy, batches, loss=loss)
    weights = None if plan.weights is None else sparsify(net, plan.weights)
    return CompressionScheduler(net, optimizer, plan, controller, weights)


def _dummy_input(document: Document, net: nn.Module) -> Tensor:
    named = [document.get(("extensions", name, "dataset")) for name in document.section(("extensions",))]
    shape = next((INPUTS[str(name)] for name in named if str(name) in INPUTS), None)
    if shape is None:
        raise UserError("none given, and no extension names a data set; an input is needed", argument="dummy_input")
    return torch.zeros(2, *shape, device=device_of(net))


class CompressionScheduler:
    """Carries out a schedule. `file_config` makes it.

        for epoch in range(epochs):
            scheduler.on_epoch_begin(epoch)
            for step, (images, labels) in enumerate(loader):
                scheduler.on_minibatch_begin(epoch, step, len(loader))
                loss = scheduler.before_backward_pass(epoch, step, len(loader), criterion(model(images), labels))
                optimizer.zero_grad()
                loss.backward()
                scheduler.before_parameter_optimization(epoch, step, len(loader), optimizer)
                optimizer.step()
                scheduler.on_minibatch_end(epoch, step, len(loader))
            scheduler.on_epoch_end(epoch)

    Attributes:
        model: the network.
        plan: the schedule in this project's words.
        controller: holds the masks on channels; None once they are removed, or where none is masked.
        weights: holds the masks on single weights; None where none is masked.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        plan: Plan,
        controller: Controller | None,
        weights: SparsityController | None = None,
    ) -> None:
        self.model, self.plan, self.controller, self.weights = model, plan, controller, weights
        self._optimizer = optimizer
        self._rates = [
            (p, scheduler_for(plan.document, p.name, optimizer)) for p in plan.rates if optimizer is not None
        ]

    def on_epoch_begin(self, epoch: int, optimizer: Optimizer | None = None, **_: Any) -> None:
        """Mask what is due, and remove it where an extension says so."""
        optimizer = optimizer or self._optimizer
        if self.weights is not None:
            self.weights.epoch_step(epoch, optimizer)
        if self.controller is None:
            return
        self.controller.epoch_step(epoch, optimizer)
        if self.plan.removal is not None and epoch >= self.plan.removal:
            thinner = self.controller.remove()
            self.controller = None
            become_thinner(self.model, thinner, optimizer)

    def on_minibatch_begin(self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, *_: Any, **__: Any) -> None:
        """Do nothing: the masks are in place."""

    def before_backward_pass(
        self,
        epoch: int,
        minibatch_id: int,
        minibatches_per_epoch: int,
        loss: Tensor,
        optimizer: Optimizer | None = None,
        return_loss_components: bool = False,
    ) -> Any:
        """Return the loss with the regularizers' penalties.

        Args:
            epoch, minibatch_id, minibatches_per_epoch: the moment.
            loss: of the task.
            optimizer: taken for Distiller's sake.
            return_loss_components: return (loss, [(name, penalty)]) instead.
        """
        pull, parts = self.plan.pull, []
        if self.controller is not None and pull is not None and pull.holds(epoch):
            parts = [(pull.name, self.controller.loss())]
        total = loss + sum((penalty for _, penalty in parts), torch.zeros_like(loss))
        return (total, parts) if return_loss_components else total

    def before_parameter_optimization(self, *_: Any, **__: Any) -> None:
        """Let a splicing pruner's hidden weights be trained; all other masked places have a gradient of zero."""
        if self.weights is not None:
            self.weights.before_optimizer()

    def on_minibatch_end(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None, **_: Any
    ) -> None:
        """Put the zeros back."""
        for controller in (self.controller, self.weights):
            if controller is not None:
                controller.step(optimizer or self._optimizer)

    def on_epoch_end(self, epoch: int, optimizer: Optimizer | None = None, **_: Any) -> None:
        """Set the learning rate of the next epoch."""
        for period, scheduler in self._rates:
            if period.holds(epoch) and (epoch - period.start) % period.frequency == 0:
                scheduler.step()

    def mask_all_weights(self, *_: Any, **__: Any) -> None:
        """Put the zeros back."""
        for controller in (self.controller, self.weights):
            if controller is not None:
                controller.masks.enforce()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs beside the states of the network and the optimizer."""
        return {
            "controller": None if self.controller is None else self.controller.state_dict(),
            "weights": None if self.weights is None else self.weights.state_dict(),
            "rates": [scheduler.state_dict() for _, scheduler in self._rates],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            UserError: it is of another schedule, or channels were removed already: the smaller network is loaded by
                `pocketprune.load`, and has no schedule any more.
        """
        if (state["controller"] is None) != (self.controller is None):
            raise UserError("of a network with other channels; pocketprune.load reads that one", argument="state")
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
        if self.weights is not None:
            self.weights.load_state_dict(state["weights"])
        for (_, scheduler), own in zip(self._rates, state["rates"], strict=True):
            scheduler.load_state_dict(own)
