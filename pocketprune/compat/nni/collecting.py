"""What NNI's data-driven pruners collect while a person's own training runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compat.nni.units import Unit, layer_of
from pocketprune.compression.views import View
from pocketprune.numerics.evidence import ActivationStatistics, GradientStatistics

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "relu6": F.relu6, "gelu": F.gelu}

Trainer = Callable[..., Any]
"""A person's training: (model, optimizer, criterion) or (model, optimizer, criterion, epoch)."""


class Collector:
    """Adds up statistics of each unit's layers over the first batches.

    Args:
        net: the network.
        units: what is pruned.
        kind: "activations" or "gradients".
        batches: how many are looked at.
        activation: what is applied to a layer's output, a key of `ACTIVATIONS`.
    """

    def __init__(self, net: nn.Module, units: Sequence[Unit], kind: str, batches: int, activation: str) -> None:
        if activation not in ACTIVATIONS:
            raise UserError(f"'{activation}' given{nearest(activation, ACTIVATIONS)}", argument="activation")
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise UserError(f"{batches!r} given; a whole number, 1 or more, is accepted", argument="batches")
        self._net, self._units, self._kind, self._batches = net, units, kind, batches
        self._activate = ACTIVATIONS[activation]
        self._found: dict[tuple[str, int], Any] = {}
        self._seen: dict[tuple[str, int], int] = {}
        self._hooks = ExitStack()

    def start(self) -> None:
        """Begin to look on anew."""
        self._found, self._seen = {}, {}
        for number, unit in enumerate(self._units):
            for view in unit.views:
                layer, key = self._net.get_submodule(layer_of(view)), (view.tensor, number)
                if self._kind == "gradients":
                    weight = self._net.get_parameter(view.tensor)
                    hook = weight.register_hook(self._gradient(key, view, weight))
                else:
                    hook = layer.register_forward_hook(self._output(key, View(view.tensor, 1, view.indices)))
                self._hooks.callback(hook.remove)

    @property
    def is_full(self) -> bool:
        """Whether all batches have been seen."""
        return bool(self._seen) and min(self._seen.values()) >= self._batches

    def statistics(self) -> dict[str, list[Any]]:
        """Return the statistics of each unit's layers by the unit's name, and look no more.

        Raises:
            UserError: a layer was never run.
        """
        self._hooks.close()
        for number, unit in enumerate(self._units):
            for view in unit.views:
                if (view.tensor, number) not in self._found:
                    raise UserError(f"the training did not run layer '{layer_of(view)}'", argument="trainer")
        return {
            unit.name: [self._found[view.tensor, number] for view in unit.views]
            for number, unit in enumerate(self._units)
        }

    def _output(self, key: tuple[str, int], view: View) -> Any:
        def look(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._add(key, lambda: ActivationStatistics.of(view.rows(self._activate(output.detach())), 0))

        return look

    def _gradient(self, key: tuple[str, int], view: View, weight: Tensor) -> Any:
        def look(gradient: Tensor) -> None:
            self._add(key, lambda: GradientStatistics.of(view.rows(weight), view.rows(gradient)))

        return look

    def _add(self, key: tuple[str, int], made: Callable[[], Any]) -> None:
        if self._seen.get(key, 0) >= self._batches:
            return
        self._seen[key] = self._seen.get(key, 0) + 1
        statistics = made()
        self._found[key] = self._found[key] + statistics if key in self._found else statistics


def run_trainer(trainer: Trainer, net: nn.Module, optimizer: Any, criterion: Any, epoch: int = 0) -> None:
    """Run one epoch of a person's training, with as many of its four arguments as it takes."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(trainer).parameters.values()
    takes = 4 if any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters) else len(
        [p for p in parameters if p.kind in kinds]
    )  # fmt: skip
    trainer(*(net, optimizer, criterion, epoch)[:takes])
