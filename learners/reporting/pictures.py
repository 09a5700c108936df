"""Channels per layer for TensorBoard: numbers, distributions, and dense against kept as bars."""

from collections.abc import Sequence

import numpy as np

from pocketprune import LayerResult
from pocketprune.common.figures import has_plots, new_figure, pixels
from pocketprune.training.metrics import Recorder

DENSE, KEPT, PAPER = (200, 205, 212), (38, 98, 166), (255, 255, 255)


def record_layers(recorder: Recorder, layers: Sequence[LayerResult]) -> None:
    """Record kept ratio and reconstruction error over the layers' index, their distributions, and a picture."""
    curves = {
        "kept_ratio": {layer.index: layer.kept / layer.channels for layer in layers},
        "error_without_refit": {layer.index: layer.error_before for layer in layers},
        "error": {layer.index: layer.error_after for layer in layers},
    }
    for name, curve in curves.items():
        values = {index: value for index, value in curve.items() if np.isfinite(value)}
        for index, value in values.items():
            recorder.record(f"layers/{name}", value, index)
        if values:
            recorder.histogram(f"distributions/{name}", np.array(list(values.values())), 0)
    recorder.image("layers/dense_against_kept", draw_layers(layers), 0)


def draw_layers(layers: Sequence[LayerResult]) -> np.ndarray:
    """Draw dense (pale) against kept (dark) input channels, a bar for each layer: (H, W, 3), uint8."""
    return _plot(layers) if has_plots() else _bars(layers)


def _bars(layers: Sequence[LayerResult], height: int = 200, width: int = 14, gap: int = 6) -> np.ndarray:
    """Draw the bars alone, where matplotlib is not installed."""
    picture = np.full((height + 2 * gap, gap + len(layers) * (width + gap), 3), PAPER, dtype=np.uint8)
    tallest = max(layer.channels for layer in layers)
    floor = height + gap
    for position, layer in enumerate(layers):
        left = gap + position * (width + gap)
        for channels, colour in ((layer.channels, DENSE), (layer.kept, KEPT)):
            picture[floor - round(height * channels / tallest) : floor, left : left + width] = colour
    return picture


def _plot(layers: Sequence[LayerResult]) -> np.ndarray:
    """Draw the bars with axes and layer names."""
    figure = new_figure(max(5.0, 0.35 * len(layers) + 1), 4.0)
    axes = figure.add_subplot()
    positions = range(len(layers))
    for name, colour in (("channels", DENSE), ("kept", KEPT)):
        heights = [getattr(layer, name) for layer in layers]
        label = "dense" if name == "channels" else name
        axes.bar(positions, heights, color=[part / 255 for part in colour], label=label)
    axes.set_xticks(positions, [layer.name for layer in layers], rotation=90, fontsize=7)
    axes.set_ylabel("input channels")
    axes.legend()
    return pixels(figure)
