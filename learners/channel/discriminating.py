"""Discrimination-aware channel pruning: PocketFlow's dis-chn-pruned learner."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from torch import Tensor, nn

from learners.context import RunContext
from learners.fitting import best_entry, fit
from learners.measuring import accuracy, costs
from learners.pruning import PruningLearner
from learners.start import train_dense
from learners.teacher import named_teacher, teacher_of
from learners.train_settings import finetune_settings
from pocketprune import analyse, remove_channels
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.sparsity.discriminating import (
    PartObjective,
    Prunable,
    WithClassifiers,
    choose_channels,
    parts_of,
    prunable_layers,
)
from pocketprune.training.batches import steps_per_epoch
from pocketprune.training.distributed import is_main
from pocketprune.training.schedules import Constant

BLOCK, CHOSEN, TUNED = "dcp_block", "dcp_chosen", "dcp_finetune"  # the phases


class DiscriminatingLearner(PruningLearner):
    """dense network -> part by part: train with an auxiliary loss, choose channels -> thin -> fine-tune."""

    settings = (*PruningLearner.settings, "discriminating")
    phases = (f"{BLOCK}*", CHOSEN, TUNED)

    def train(self) -> dict[str, Any]:
        """Prune the network that the run starts with, and fine-tune it. Return the report."""
        run, flags = self.run, self.run.config.discriminating
        start = self.start()
        net = run.net if start is None else start
        layers = prunable_layers(analyse(net, run.example))  # before any work: it may be impossible
        parts = parts_of(layers, flags.dcp_nb_stages)
        named = named_teacher(run)
        self.claim()
        if start is None:
            train_dense(run, net)
        dense = copy.deepcopy(net)

        extended = WithClassifiers(net, [part[-1].name for part in parts], run.example, run.config.run.seed)
        controller = _controller(extended)
        for number in range(_resumed(run, extended, controller), len(parts)):
            self.tune(extended, controller, number)
            with run.timed("prune"):
                self.choose(extended, controller, number, parts[number], dense)
            _save(run, extended, controller, number + 1)
        kept = {layer.group.name: _kept(controller, layer) for layer in layers}
        extended.detach()
        controller.detach()
        thinned = remove_channels(net, run.example, kept)
        layer_entries = [_entry(layer, kept[layer.group.name]) for layer in layers]
        return self.finetune(dense, thinned, teacher_of(run, named, dense), layer_entries)

    def finetune(
        self, dense: nn.Module, thinned: nn.Module, teacher: nn.Module | None, layers: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Measure and fine-tune the thinned network, and save it. Return the report."""
        run, share = self.run, self.run.config.train.nb_epochs_rat
        dense_cost, cost = costs(run, dense, thinned)
        stages = {"dense": accuracy(run, dense) | dense_cost, "before_finetune": accuracy(run, thinned) | cost}
        stages["pruned"] = stages["before_finetune"]
        facts: dict[str, Any] = {}
        if share > 0:
            settings = finetune_settings(run.config, share, run.device.type)
            tuned = fit(run, thinned, TUNED, settings, "finetune", teacher=teacher, keep_best=True)
            facts["finetune"] = best_entry(tuned)
            stages["pruned"] = accuracy(run, thinned) | cost
        self.save(thinned)
        return self.finish(stages, layers=layers, facts=facts)

    def tune(self, extended: WithClassifiers, controller: SparsityController, number: int) -> None:
        """Train the network and a part's auxiliary classifier."""
        run, flags = self.run, self.run.config.discriminating
        if not flags.dcp_nb_iters_block:
            return
        full = replace(
            finetune_settings(run.config, 1.0, run.device.type),
            optimizer="adam",
            lrn_rate=flags.dcp_lrn_rate_adam,
            schedule=Constant(),
            weight_decay=0.0,
        )
        settings = replace(full, epochs=flags.dcp_nb_iters_block / steps_per_epoch(run.dataset.train, full))
        held = [SparsityCallback(controller)]
        fit(
            run,
            extended,
            f"{BLOCK}{number}",
            settings,
            "prune",
            objective=PartObjective(extended, number),
            callbacks=held,
        )

    def choose(
        self,
        extended: WithClassifiers,
        controller: SparsityController,
        number: int,
        layers: list[Prunable],
        dense: nn.Module,
    ) -> None:
        """Choose the input channels of a part's layers, one layer after the other."""
        run, flags = self.run, self.run.config.discriminating
        for place, layer in enumerate(layers):
            masked = choose_channels(
                extended,
                number,
                layer.name,
                dense,
                _endless(run, 1000 * number + place),
                max(1, round((1 - flags.dcp_prune_ratio) * layer.group.size)),
                steps=flags.dcp_nb_iters_layer,
                lrn_rate=flags.dcp_lrn_rate_adam,
            )
            own = controller.masks.masked[_masked_name(layer)]
            controller.masks.set({_masked_name(layer): masked.cpu().view(1, -1, 1, 1).expand(own.shape)})
            run.say(f"{layer.name}: {int((~masked).sum())} of {len(masked)} input channels chosen")


def _controller(extended: WithClassifiers) -> SparsityController:
    """Return what holds zeros in place, none at first."""
    controller = sparsify(extended, {"ignore": ["heads*"]})
    controller.freeze()
    return controller


def _masked_name(layer: Prunable) -> str:
    return f"net.{layer.name}"


def _kept(controller: SparsityController, layer: Prunable) -> list[int]:
    """Return the channels of a layer's group that it reads."""
    masked = controller.masks.masked[_masked_name(layer)][0, :, 0, 0]
    kept: list[int] = (~masked).nonzero().flatten().tolist()
    return kept


def _endless(run: RunContext, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training images, without augmentation, in an order that the number decides."""
    for epoch in count():
        seed = run.config.run.seed + 7919 * number + epoch
        for images, labels in run.dataset.train.batches(run.config.data.batch_size, seed=seed, shuffle=True):
            yield images.to(run.device), labels.to(run.device)


def _resumed(run: RunContext, extended: WithClassifiers, controller: SparsityController) -> int:
    """Return how many parts an interrupted run has done, its state taken over."""
    found = run.checkpoints(CHOSEN).latest()
    if found is None:
        return 0
    with found.understood():
        extended.load_state_dict(found.state["net"])
        controller.load_state_dict(found.state["masks"])
    return found.step


def _save(run: RunContext, extended: WithClassifiers, controller: SparsityController, done: int) -> None:
    if is_main():
        run.checkpoints(CHOSEN).save({"net": extended.state_dict(), "masks": controller.state_dict()}, done)


def _entry(layer: Prunable, kept: list[int]) -> dict[str, Any]:
    """Return what report.json says of a layer."""
    return {
        "name": layer.name,
        "channels": layer.group.size,
        "kept": kept,
        "preserve_ratio": len(kept) / layer.group.size,
        "note": "",
    }
