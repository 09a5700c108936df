"""Watching a search: a progress bar, and TensorBoard curves and pictures of its roll-outs."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pocketprune.search import Problem, Progress, Rollout, SearchResult, SensitivityTable
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import Recorder

INK, PALE, PAPER = (38, 98, 166), (200, 205, 212), (255, 255, 255)


class SearchWatch:
    """Hears of every roll-out; to be used as a context, and told the result at the end."""

    def __init__(self, recorder: Recorder, problem: Problem, name: str) -> None:
        self.recorder, self.problem, self.name = recorder, problem, name
        self._bar: tqdm | None = None

    def __enter__(self) -> "SearchWatch":
        self._bar = tqdm(leave=False, delay=1, disable=not is_main(), desc=self.name, unit="roll-out")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        rollout, best, bar = progress.rollout, progress.best, self._bar
        bar.total = max(progress.expected, progress.done)
        bar.update(progress.done - bar.n)
        if best is not None:
            bar.set_postfix_str(f"best {best.reward:.4f} at {best.share:.1%} {self.problem.budget.kind}")
        curves = {"reward": rollout.reward, "accuracy": rollout.accuracy, "loss": rollout.loss, "cost": rollout.share}
        curves |= {"best_reward": best.reward} if best is not None else {}
        for key, value in (curves | progress.facts).items():
            if math.isfinite(value):
                self.recorder.record(f"{self.name}/{key}", value, rollout.index)
        unit = 1e3 if self.problem.budget.kind == "latency" else 1.0  # steps are whole: microseconds
        self.recorder.record(f"{self.name}/accuracy_against_cost", rollout.accuracy, round(rollout.cost * unit))

    def finish(self, result: SearchResult) -> None:
        """The ratios of the best network, of all roll-outs as a picture, and their cloud of accuracy and cost."""
        for index, ratio in enumerate(self.problem.shares(result.values)):
            self.recorder.record(f"{self.name}/preserve_ratio", ratio, index)
        rollouts = [r for r in result.history if r.kind == "rollout"]
        names = [variable.name for variable in self.problem.variables]
        ratios = np.array([self.problem.shares(r.values) for r in rollouts])
        self.recorder.image(f"{self.name}/ratios_per_layer", draw_ratios(names, ratios), 0)
        self.recorder.image(f"{self.name}/pareto", draw_cloud(result.history, self.problem.budget.kind), 0)
        self.recorder.flush()


def draw_ratios(names: Sequence[str], ratios: np.ndarray) -> np.ndarray:
    """Roll-outs (columns) by layers (rows), darker for more kept: (H, W, 3), uint8."""

    def plot(axes: Any) -> None:
        axes.imshow(ratios.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.set_xlabel("roll-out")

    def cells() -> np.ndarray:
        shade = np.array(PAPER) + ratios.T[..., None] * (np.array(INK) - np.array(PAPER))
        return shade.astype(np.uint8).repeat(10, 0).repeat(4, 1)

    return _drawn(plot, cells, height=max(4.0, 0.16 * len(names)))


def draw_cloud(history: Sequence[Rollout], kind: str) -> np.ndarray:
    """Accuracy against cost of every network scored, probes pale."""
    points = [(r.share, r.accuracy, r.kind == "rollout") for r in history]

    def plot(axes: Any) -> None:
        for wanted, colour in ((False, PALE), (True, INK)):
            chosen = [(x, y) for x, y, kept in points if kept is wanted]
            if chosen:
                axes.scatter(*zip(*chosen, strict=True), s=12, color=[c / 255 for c in colour],
                             label="roll-outs" if wanted else "single layers")  # fmt: skip
        axes.set_xlabel(f"share of the dense {kind}")
        axes.set_ylabel("accuracy, held-out")
        axes.legend()

    def dots() -> np.ndarray:
        return _raster([([(x, y)], INK if kept else PALE) for x, y, kept in points])

    return _drawn(plot, dots)


def draw_sensitivity(table: SensitivityTable) -> np.ndarray:
    """Divergence from the dense network against the share kept, a line for each layer cut alone."""
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
    Image.fromarray(picture).save(path)


def _drawn(plot: Callable[[Any], None], plain: Callable[[], np.ndarray], height: float = 4.0) -> np.ndarray:
    """A figure with axes where a plotting library is installed, else the plain picture."""
    if importlib.util.find_spec("matplotlib") is None:
        return plain()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, height), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plot(figure.add_subplot())
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _raster(series: Sequence[tuple[Sequence[tuple[float, float]], tuple[int, int, int]]]) -> np.ndarray:
    """Points as small squares on 400 x 600, scaled to fill it."""
    picture = np.full((400, 600, 3), PAPER, dtype=np.uint8)
    points = np.array([point for part, _ in series for point in part])
    low, high = points.min(0), points.max(0)
    for part, colour in series:
        for x, y in (np.array(part) - low) / np.maximum(high - low, 1e-12):
            row, column = 390 - round(380 * y), 5 + round(585 * x)
            picture[row : row + 4, column : column + 4] = colour
    return picture
