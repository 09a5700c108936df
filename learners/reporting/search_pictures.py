"""Pictures of a search: the ratios of all roll-outs, their accuracy against their cost, the sensitivities."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocketprune.common.figures import has_plots, new_figure, pixels
from pocketprune.search import Rollout, SensitivityTable

INK, PALE, PAPER = (38, 98, 166), (200, 205, 212), (255, 255, 255)


def draw_ratios(names: Sequence[str], ratios: np.ndarray) -> np.ndarray:
    """Draw roll-outs (columns) by layers (rows), darker for more kept: (H, W, 3), uint8."""

    def plot(axes: Any) -> None:
        axes.imshow(ratios.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.set_xlabel("roll-out")

    def cells() -> np.ndarray:
        shade: np.ndarray = np.array(PAPER) + ratios.T[..., None] * (np.array(INK) - np.array(PAPER))
        shade = shade.astype(np.uint8).repeat(10, 0).repeat(4, 1)
        return shade

    return _drawn(plot, cells, height=max(4.0, 0.16 * len(names)))


def draw_cloud(history: Sequence[Rollout], kind: str, metric: str = "accuracy") -> np.ndarray:
    """Draw the metric of every network scored against its cost, single layers' pale."""
    points = [(r.share, r.accuracy, r.kind == "rollout") for r in history]

    def plot(axes: Any) -> None:
        for wanted, colour in ((False, PALE), (True, INK)):
            chosen = [(x, y) for x, y, kept in points if kept is wanted]
            if chosen:
                axes.scatter(*zip(*chosen, strict=True), s=12, color=[c / 255 for c in colour],
                             label="roll-outs" if wanted else "single layers")  # fmt: skip
        axes.set_xlabel(f"share of the dense {kind}")
        axes.set_ylabel(f"{metric}, held-out")
        axes.legend()

    def dots() -> np.ndarray:
        return _raster([([(x, y)], INK if kept else PALE) for x, y, kept in points])

    return _drawn(plot, dots)


def draw_sensitivity(table: SensitivityTable) -> np.ndarray:
    """Draw the divergence from the dense network against the share kept, a line for each layer cut alone."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for line in table.lines:
        lines.setdefault(line.variable, [(1.0, 0.0)]).append((line.value / line.full, line.divergence))

    def plot(axes: Any) -> None:
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker=".", linewidth=1, label=name)
        axes.set_xlabel("share of the layer's channels kept")
        axes.set_ylabel("divergence from the dense network, held-out")
        axes.legend(fontsize=5, ncols=2)

    def dots() -> np.ndarray:
        return _raster([(points, INK) for points in lines.values()])

    return _drawn(plot, dots)


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3), uint8, in the format of the file's suffix."""
    Image.fromarray(picture).save(path)


def _drawn(plot: Callable[[Any], None], plain: Callable[[], np.ndarray], height: float = 4.0) -> np.ndarray:
    """Return a figure with axes where matplotlib is installed, else the plain picture."""
    if not has_plots():
        return plain()
    figure = new_figure(7.0, height)
    plot(figure.add_subplot())
    return pixels(figure)


def _raster(series: Sequence[tuple[Sequence[tuple[float, float]], tuple[int, int, int]]]) -> np.ndarray:
    """Draw points as small squares on 400 x 600, scaled to fill it."""
    picture = np.full((400, 600, 3), PAPER, dtype=np.uint8)
    points = np.array([point for part, _ in series for point in part])
    low, high = points.min(0), points.max(0)
    for part, colour in series:
        for x, y in (np.array(part) - low) / np.maximum(high - low, 1e-12):
            row, column = 390 - round(380 * y), 5 + round(585 * x)
            picture[row : row + 4, column : column + 4] = colour
    return picture
