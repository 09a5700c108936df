"""Distiller's sensitivity analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from pocketprune.compression.sensitivity import LEVELS, Sensitivity, draw, measure_sensitivity, write_csv

Found = dict[str, dict[float, tuple[float, float, float]]]
"""Parameter -> level -> (top1, top5, loss)."""


def perform_sensitivity_analysis(
    model: nn.Module,
    net_params: Sequence[str],
    sparsities: Sequence[float],
    test_func: Callable[[nn.Module], tuple[float, float, float]],
    group: str = "element",
) -> Found:
    """Return how the network does with one parameter masked at a time.

    Args:
        model: the network, which ends as it was.
        net_params: names of parameters, with `module.` or without; [] for all weights.
        sparsities: levels; [] for 0 to 0.95 in steps of 0.05.
        test_func: (model) -> (top1, top5, loss).
        group: "element", "filter" or "channel".

    Raises:
        UserError: an unknown name, group, or a level outside [0, 1).
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    names = [name if name in own else name.removeprefix("module.") for name in net_params]

    def judge(net: nn.Module) -> dict[str, float]:
        return dict(zip(("top1", "top5", "loss"), test_func(net), strict=True))

    found = measure_sensitivity(
        model, judge, structure=group, parameters=names or None, levels=sparsities if len(sparsities) else LEVELS
    )
    shown: Found = {}
    for each in found:
        values = each.measured
        shown.setdefault(each.parameter, {})[each.level] = (values["top1"], values["top5"], values["loss"])
    return shown


def sensitivities_to_csv(sensitivities: Found, fname: str | Path) -> None:
    """Write what `perform_sensitivity_analysis` returned: parameter, sparsity, top1, top5, loss."""
    write_csv(fname, _listed(sensitivities))


def sensitivities_to_png(sensitivities: Found, fname: str | Path) -> None:
    """Draw the top-5 accuracy of each parameter over the level."""
    draw(fname, _listed(sensitivities))


def _listed(found: Found) -> list[Sensitivity]:
    return [
        Sensitivity(name, level, dict(zip(("top1", "top5", "loss"), values, strict=True)))
        for name, levels in found.items()
        for level, values in levels.items()
    ]
