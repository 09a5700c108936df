"""The pair: filter pruning and 8-bit quantization in one configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.controller import FilterPruningController
from pocketprune.compat.nncf.inputs import adaptation_batches
from pocketprune.compat.nncf.stage import CompressionStage
from pocketprune.compat.nncf.statistics import NNCFStatistics, table
from pocketprune.quantization.calibration import calibrate
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.options import QuantizationOptions
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizers import WeightQuantizer

NAME, PART = "quantization", "quantizers"
SAMPLES = 512
"""Images that ranges are measured on."""
TOLERANCE = 0.25
"""Of an exported file's outputs: where a kernel rounds to the neighbouring code, they move."""


@dataclass(frozen=True)
class QuantizationStatistics:
    """What computes in integers: layers with the bits of their weights, values, and what stays in floats."""

    weights: Mapping[str, int]
    activations: int
    in_float: tuple[str, ...]

    def to_str(self) -> str:
        """Return a table of the layers, and what stays in floats."""
        rows = [(name, str(bits)) for name, bits in self.weights.items()]
        lines = ["Statistics of the quantization algorithm:", table(("Layer", "Bits of its weight"), rows)]
        lines.append(f"Quantized activations: {self.activations}; in floats: {', '.join(self.in_float) or 'nothing'}")
        return "\n".join(lines)


class QuantizedPruningController(FilterPruningController):
    """Prunes a network that computes with fake quantisers: weights are masked, then pass through integer codes.

    The quantisers are a part of the network, `quantizers`, whose scales and ranges are trained with it.
    """

    tolerance = TOLERANCE

    def quantize(self, options: QuantizationOptions, *, fit: bool) -> None:
        """Put quantisers into the network's forward.

        Args:
            options: how it is quantised.
            fit: whether ranges are measured on the registered data; else they come with the network's state.
        """
        self._options = options
        args, kwargs = self._example
        self._prepared = PreparedNet(self.model, kwargs or args, options)
        if fit:
            calibrate(self._prepared, self._images())
        self._enter()

    def set_pruning_level(
        self, pruning_level: float | Mapping[int, float], run_batchnorm_adaptation: bool = False
    ) -> None:
        """Do what `FilterPruningController.set_pruning_level` does, in floats."""
        with self._in_floats():
            super().set_pruning_level(pruning_level, run_batchnorm_adaptation)

    def compression_stage(self) -> CompressionStage:
        """Return how far the network is compressed; quantised it always is."""
        is_full = super().compression_stage() == CompressionStage.FULLY_COMPRESSED
        return CompressionStage.FULLY_COMPRESSED if is_full else CompressionStage.PARTIALLY_COMPRESSED

    def statistics(self, quickly_collected_only: bool = False) -> NNCFStatistics:
        """Return what is pruned, and what is quantised."""
        step = self._prepared.step
        own = QuantizationStatistics(step.layers, len(step.activations), tuple(self._prepared.in_float))
        return NNCFStatistics(super().statistics(quickly_collected_only).filter_pruning, own)

    def get_compression_state(self) -> dict[str, Any]:
        """Return the state of the pruning, and what the quantisation was asked to be."""
        state = super().get_compression_state()
        options = {"weight_bits": self._options.weight_bits, "activation_bits": self._options.activation_bits}
        state["builder_state"][NAME] = {**options, "ignore": list(self._options.ignore)}
        return state

    def strip(self, do_copy: bool = True, *, remove: bool = True) -> nn.Module:
        """Return the network without its pruned filters, in integers, by the scales and ranges that were trained.

        Args are those of `FilterPruningController.strip`. What is returned is never the network itself.
        """
        with self._in_floats():
            stripped = super().strip(remove=remove)
        args, kwargs = self._example
        smaller = PreparedNet(stripped.eval(), kwargs or args, self._options)
        calibrate(smaller, self._images())  # for what has no counterpart in the network that was trained
        self._hand_over(smaller, self._kept_rows() if remove else {})
        return convert(smaller)

    @torch.no_grad()
    def _hand_over(self, smaller: PreparedNet, rows: Mapping[str, Tensor]) -> None:
        """Give the smaller network's quantisers what those of the network have learned.

        Args:
            smaller: the smaller network with its quantisers.
            rows: name of a weight -> its output channels that are left; all where it is not named.
        """
        own, theirs = self._prepared.quantizers, smaller.quantizers
        for layer in smaller.layers:
            if layer.key not in own.weights:
                continue
            learned, target = own.weights[layer.key], theirs.weights[layer.key]
            if isinstance(learned, WeightQuantizer) and isinstance(target, WeightQuantizer):
                taken = rows.get(layer.weight)
                scale = learned.scale if taken is None else learned.scale[taken.to(learned.scale.device)]
                if scale.shape == target.scale.shape:
                    target.scale.copy_(scale)
        for name, part in theirs.all_activations().items():
            if name in own.activations:
                part.load_state_dict(own.activation(name).state_dict())

    def _kept_rows(self) -> dict[str, Tensor]:
        """Name of each pruned weight -> its output channels that are left."""
        kept: dict[str, Tensor] = {}
        masked = self.control.masks.masked
        for name, views in self.control.planner.views.items():
            for view in (view for view in views.filters if view.axis == 0):
                rows = kept.setdefault(
                    view.tensor, torch.ones(len(self.model.get_parameter(view.tensor)), dtype=torch.bool)
                )
                rows[view.indices[masked[name]].flatten()] = False
        return {name: rows.nonzero().flatten() for name, rows in kept.items()}

    @contextmanager
    def _in_floats(self) -> Iterator[None]:
        """Let the network compute without quantisers for a while."""
        is_in = PART in self.model._modules
        if is_in:
            vars(self.model).pop("forward", None)
            self.model._modules.pop(PART, None)
        try:
            yield
        finally:
            if is_in:
                self._enter()

    def _enter(self) -> None:
        """Let the network compute with quantisers, which are a part of it."""
        self._prepared.quantizers.to(device_of(self.model))
        running = self._prepared.module()
        self.model.add_module(PART, self._prepared.quantizers)
        vars(self.model)["forward"] = running.forward

    def _images(self) -> list[Tensor]:
        if self._loader is None:
            raise UserError(
                "none registered; quantization measures ranges on some images (register_default_init_args)",
                argument="train_loader",
            )
        return adaptation_batches(self._loader, SAMPLES, device_of(self.model))
