"""Sensitivity: how a network does with one parameter masked at a time, at several levels."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.figures import new_figure, require_plots
from pocketprune.common.files import write_atomically
from pocketprune.common.names import nearest
from pocketprune.compression.ranking import masked_count
from pocketprune.compression.tensor_masks import TensorMasks
from pocketprune.numerics.criteria import kept_channels
from pocketprune.numerics.evidence import Evidence
from pocketprune.numerics.weight_patterns import lowest

STRUCTURES = ("element", "filter", "channel")
"""What is masked: single weights, rows that write one channel, or columns that read one."""

LEVELS = tuple(round(0.05 * step, 2) for step in range(20))
"""Distiller's: 0 to 0.95 in steps of 0.05."""

CSV_FIELDS = ("parameter", "sparsity", "top1", "top5", "loss")

Judge = Callable[[nn.Module], Mapping[str, float]]
"""What is measured of a network, by name: top1, top5 and loss, or a part of them."""


@dataclass(frozen=True)
class Sensitivity:
    """How the network does with one parameter masked at one level."""

    parameter: str
    level: float
    measured: Mapping[str, float]


def measure_sensitivity(
    net: nn.Module,
    judge: Judge,
    *,
    structure: str = "element",
    parameters: Sequence[str] | None = None,
    levels: Sequence[float] = LEVELS,
    stop: Callable[[Sensitivity], bool] | None = None,
) -> list[Sensitivity]:
    """Mask one parameter at a time, by magnitude, and measure the network. It ends as it was.

    Args:
        net: the network.
        judge: measures it.
        structure: one of `STRUCTURES`.
        parameters: names; the weights of all convolutions and linear layers by default.
        levels: shares that are masked.
        stop: whether a measurement makes higher levels of the same parameter needless.

    Raises:
        UserError: an unknown structure, parameter, or a level outside [0, 1).
    """
    if structure not in STRUCTURES:
        raise UserError(f"'{structure}' given{nearest(structure, STRUCTURES)}", argument="structure")
    if odd := [level for level in levels if not 0 <= level < 1]:
        raise UserError(f"{odd[0]} given; levels in [0, 1) are accepted", argument="levels")
    own = dict(net.named_parameters(remove_duplicate=False))
    names = [name for name, p in own.items() if p.dim() > 1] if parameters is None else list(parameters)
    if unknown := [name for name in names if name not in own]:
        raise UserError(f"'{unknown[0]}' given{nearest(unknown[0], own)}", argument="parameters")
    masks, found = TensorMasks(net), []
    for name in names:
        for level in levels:
            masks.set({name: smallest(own[name], level, structure)})
            found.append(Sensitivity(name, level, dict(judge(net))))
            masks.lift()
            if stop is not None and stop(found[-1]):
                break
    return found


def smallest(weight: Tensor, level: float, structure: str) -> Tensor:
    """Return where the smallest share of a weight lies, a boolean of its shape."""
    axis = {"element": None, "filter": 0, "channel": 1}[structure]
    if axis is None:
        return lowest([weight.detach().abs()], masked_count(level, weight.numel()))[0].view(weight.shape)
    rows = weight.detach().movedim(axis, 0).flatten(1)
    evidence = Evidence(channels=len(rows), filters=[rows])
    gone = torch.ones(len(rows), dtype=torch.bool)
    gone[kept_channels("l1", evidence, len(rows) - masked_count(level, len(rows))).cpu()] = False
    shape = [-1 if place == axis else 1 for place in range(weight.dim())]
    return gone.view(shape).expand(weight.shape).clone()


def write_csv(path: str | os.PathLike[str], found: Sequence[Sensitivity]) -> None:
    """Write measurements with Distiller's columns; what was not measured stays empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_FIELDS)
    for each in found:
        writer.writerow([each.parameter, each.level, *(each.measured.get(name, "") for name in CSV_FIELDS[2:])])
    write_atomically(path, text.getvalue().encode())


def draw(path: str | os.PathLike[str], found: Sequence[Sensitivity], value: str = "top5") -> None:
    """Draw one curve for each parameter: a measured value over the level.

    Raises:
        UserError: the extra `plots` is not installed, or the value was not measured.
    """
    require_plots()
    if not found or any(value not in each.measured for each in found):
        raise UserError(f"'{value}' was not measured", argument="value")
    figure = new_figure(10, 6)
    axes = figure.add_subplot()
    for name in dict.fromkeys(each.parameter for each in found):
        mine = [each for each in found if each.parameter == name]
        axes.plot([each.level for each in mine], [each.measured[value] for each in mine], marker=".", label=name)
    axes.set(xlabel="level", ylabel=value, title="Sensitivity: one parameter masked at a time")
    axes.legend(fontsize="x-small", ncols=2)
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:] or "png")
    write_atomically(path, picture.getbuffer())
