"""Draw a network's channel groups: every channel, kept or removed, and how many there are."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.figures import new_figure, require_plots
from pocketprune.common.files import write_atomically
from pocketprune.structure.group import ChannelGroup
from pocketprune.thinning.recipes import Recipe, recipe_of

KEPT, REMOVED, STAYS, PAPER = "#2662a6", "#f0b49e", "#c8cdd4", "#ffffff"
SUFFIXES = (".png", ".svg", ".pdf")
MOST_ROWS = 400
"""A picture with more rows than this would be taller than image files can be."""


@dataclass(frozen=True)
class Row:
    """A row is one line of the picture.

    Attributes:
        label: the group's name, or the layer's that reads its own subset of a shared input.
        kept: boolean per channel.
        stays: whether the channels could not have been removed.
    """

    label: str
    kept: np.ndarray
    stays: bool = False


def draw_groups(path: str | os.PathLike[str], groups: Sequence[ChannelGroup], pruned: nn.Module | None = None) -> None:
    """Draw channel groups, one line each in forward order. Every channel is a cell, kept or removed.

    Layers that read their own subset of a shared input (samplers) follow on lines of their own.

    Args:
        path: where the picture is written; it ends in .png, .svg or .pdf.
        groups: the channel groups of the dense network, from `find_channel_groups`.
        pruned: the network after pruning; None where nothing was removed.

    Raises:
        UserError: the extra `plots` is not installed, the groups are not those of `pruned`, or the file cannot be
            written.
    """
    require_plots()
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a picture ends in {', '.join(SUFFIXES)}")
    rows = group_rows(groups, (recipe_of(pruned) if pruned is not None else None) or Recipe())
    if not rows or len(rows) > MOST_ROWS:
        raise UserError(f"{len(rows)} given; 1 to {MOST_ROWS} can be drawn", argument="groups")
    picture = io.BytesIO()
    _figure(rows).savefig(picture, format=path.suffix[1:])
    write_atomically(path, picture.getbuffer())


def group_rows(groups: Sequence[ChannelGroup], recipe: Recipe) -> list[Row]:
    """Return the lines of the picture: the groups in forward order, then the samplers.

    Raises:
        UserError: the recipe is of a network with other groups.
    """
    sizes = {group.name: group.size for group in groups}
    for name, kept in recipe.groups.items():
        if name not in sizes or not kept or max(kept) >= sizes[name]:
            raise UserError(f"they are not those of the network that was pruned ('{name}')", argument="groups")
    rows = [Row(group.name, _mask(group.size, recipe.groups.get(group.name)), not group.prunable) for group in groups]
    for weight, kept in recipe.samplers.items():
        rows.append(Row(f"read by {weight.removesuffix('.weight')}", _mask(recipe.dense[weight][1], kept)))
    return rows


def _mask(size: int, kept: Sequence[int] | None) -> np.ndarray:
    """Return a boolean for each of `size` channels; None keeps all."""
    mask = np.full(size, kept is None)
    mask[list(kept or ())] = True
    return mask


def _figure(rows: Sequence[Row]) -> Any:
    """Draw strips of channels at the left and their numbers as bars at the right."""
    figure = new_figure(10.0, 1.2 + 0.22 * len(rows))
    strips, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for position, row in enumerate(rows):
        _strip(strips, position, row)
        count, size = int(row.kept.sum()), len(row.kept)
        bars.barh(position, size, height=0.8, color=STAYS if row.stays else REMOVED)
        if not row.stays:
            bars.barh(position, count, height=0.8, color=KEPT)
        text = str(size) if count == size else f"{count} of {size}"
        bars.annotate(text, (size, position), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6)
    strips.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=7)
    strips.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[], title="every channel of each group")
    bars.margins(x=0.25)
    bars.set(title="channels")
    bars.tick_params(labelsize=7, left=False)
    _legend(figure)
    return figure


def _strip(axes: Any, position: int, row: Row) -> None:
    """Draw one row as a bar of width 1; neighbouring channels of one state are one piece of it."""
    edges = np.flatnonzero(np.diff(row.kept.astype(int))) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(row.kept)]
    colours = [STAYS if row.stays else KEPT if row.kept[start] else REMOVED for start in starts]
    pieces = [(start / len(row.kept), (end - start) / len(row.kept)) for start, end in zip(starts, ends, strict=True)]
    axes.broken_barh(pieces, (position - 0.4, 0.8), facecolors=colours, edgecolor=PAPER, linewidth=0.2)


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    kinds = ((KEPT, "kept"), (REMOVED, "removed"), (STAYS, "cannot be removed"))
    figure.legend(
        handles=[Patch(color=colour, label=label) for colour, label in kinds],
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
