"""Dense against kept channels: what TensorBoard is given."""

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import torch

from learners.reporting import pictures

LAYERS = [
    SimpleNamespace(index=0, name="conv1", channels=3, kept=3, error_before=math.nan, error_after=math.nan),
    SimpleNamespace(index=1, name="layer1.conv1", channels=16, kept=4, error_before=0.5, error_after=0.125),
    SimpleNamespace(index=2, name="layer1.conv2", channels=16, kept=8, error_before=0.25, error_after=0.0625),
]


class Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.scalars: dict[str, dict[int, float]] = {}
        self.histograms: dict[str, list[float]] = {}
        self.images: dict[str, np.ndarray] = {}

    def record(self, key: str, value: float | torch.Tensor, step: int) -> None:
        self.scalars.setdefault(key, {})[step] = float(value)

    def histogram(self, key: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        self.histograms[key] = np.asarray(values).tolist()

    def image(self, key: str, image: np.ndarray | torch.Tensor, step: int) -> None:
        self.images[key] = np.asarray(image)


def test_layers_are_curves_and_missing_errors_are_left_out() -> None:
    notes = Notes()
    pictures.record_layers(notes, LAYERS)  # type: ignore[arg-type]
    assert notes.scalars == {
        "layers/kept_ratio": {0: 1.0, 1: 0.25, 2: 0.5},
        "layers/error_without_refit": {1: 0.5, 2: 0.25},
        "layers/error": {1: 0.125, 2: 0.0625},
    }
    assert notes.histograms["distributions/error"] == [0.125, 0.0625]
    assert notes.histograms["distributions/kept_ratio"] == [1.0, 0.25, 0.5]
    assert notes.images["layers/dense_against_kept"].ndim == 3


def test_bars_are_as_high_as_the_channels() -> None:
    picture = pictures._bars(LAYERS, height=160)  # type: ignore[arg-type]
    dark = (picture == pictures.KEPT).all(axis=2)
    pale = (picture == pictures.DENSE).all(axis=2)
    middle = [6 + 20 * position + 7 for position in range(3)]
    assert [int(dark[:, x].sum()) for x in middle] == [30, 40, 80]
    assert [int(pale[:, x].sum()) for x in middle] == [0, 120, 80]


def test_both_drawings_are_rgb_bytes() -> None:
    drawings = [pictures._bars(LAYERS)]  # type: ignore[arg-type]
    if importlib.util.find_spec("matplotlib"):
        drawings.append(pictures._plot(LAYERS))  # type: ignore[arg-type]
    for picture in drawings:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= 3
