"""NNI's `SensitivityAnalysis`: how much each layer's pruning costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.compression.sensitivity import Sensitivity, measure_sensitivity

STRUCTURES = {"l1": "filter", "fine-grained": "element"}
STOPS = ("minimize", "maximize", "dropped", "raised")


class SensitivityAnalysis:
    """Masks one convolution at a time, at several shares, and measures the network.

    Args:
        model: the network, which stays as it is.
        val_func: measures it: returns a number.
        sparsities: shares that are masked; 0.1 to 0.9 by default.
        prune_type: "l1" for filters or "fine-grained" for single weights.
        early_stop_mode: None, or when a layer's higher shares are left out: "dropped" (the number fell by more than
            the threshold), "raised", "minimize" (it is below the threshold) or "maximize".
        early_stop_value: the threshold.
    """

    def __init__(
        self,
        model: nn.Module,
        val_func: Callable[..., float],
        sparsities: Sequence[float] | None = None,
        prune_type: str = "l1",
        early_stop_mode: str | None = None,
        early_stop_value: float | None = None,
    ) -> None:
        if prune_type not in STRUCTURES:
            raise UserError(f"'{prune_type}' given; {', '.join(STRUCTURES)} are accepted", argument="prune_type")
        if early_stop_mode is not None and (early_stop_mode not in STOPS or early_stop_value is None):
            accepted = f"{', '.join(STOPS)} with an early_stop_value are accepted"
            raise UserError(f"'{early_stop_mode}' given; {accepted}", argument="early_stop_mode")
        self._model, self._measure, self._structure = model, val_func, STRUCTURES[prune_type]
        self._mode, self._limit = early_stop_mode, float(early_stop_value or 0.0)
        self.sparsities = tuple(sparsities) if sparsities is not None else tuple(s / 10 for s in range(1, 10))
        self.sensitivities: dict[str, dict[float, float]] = {}

    def analysis(
        self,
        val_args: Sequence[Any] | None = None,
        val_kwargs: dict[str, Any] | None = None,
        specified_layers: Sequence[str] | None = None,
    ) -> dict[str, dict[float, float]]:
        """Return layer name -> share -> number, with the whole network's at share 0.

        Args:
            val_args: what `val_func` is given; the network by default.
            val_kwargs: and by name.
            specified_layers: names of layers; all convolutions by default.
        """
        convolutions = [n for n, m in self._model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
        names = list(specified_layers) if specified_layers is not None else convolutions
        arguments = (self._model,) if val_args is None else tuple(val_args)

        def judge(_net: nn.Module) -> dict[str, float]:
            return {"value": float(self._measure(*arguments, **(val_kwargs or {})))}

        dense = judge(self._model)["value"]
        found = measure_sensitivity(
            self._model,
            judge,
            structure=self._structure,
            parameters=[f"{name}.weight" for name in names],
            levels=self.sparsities,
            stop=lambda each: self._stops(each, dense),
        )
        self.sensitivities = {name: {0.0: dense} for name in names}
        for each in found:
            self.sensitivities[each.parameter.removesuffix(".weight")][each.level] = each.measured["value"]
        return self.sensitivities

    def _stops(self, each: Sensitivity, dense: float) -> bool:
        value = each.measured["value"]
        return {
            None: False,
            "minimize": value < self._limit,
            "maximize": value > self._limit,
            "dropped": dense - value > self._limit,
            "raised": value - dense > self._limit,
        }[self._mode]

    def export(self, filepath: str | Path) -> None:
        """Write what `analysis` found as CSV: a line for each layer, a column for each share."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["layername", 0.0, *self.sparsities])
        for name, values in self.sensitivities.items():
            writer.writerow([name, *(values.get(level, "") for level in (0.0, *self.sparsities))])
        write_atomically(Path(filepath), text.getvalue().encode())
