"""Dense against kept channels: what TensorBoard is given."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import torch

from learners import pictures

LAYERS = [
    SimpleNamespace(index=0, name="conv1", channels=3, kept=3, error_after=float("nan")),
    SimpleNamespace(index=1, name="layer1.conv1", channels=16, kept=4, error_after=0.125),
    SimpleNamespace(index=2, name="layer1.conv2", channels=16, kept=8, error_after=None),
]


class Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.histograms: dict[str, np.ndarray] = {}
        self.images: dict[str, np.ndarray] = {}

    def record(self, key: str, value: float | torch.Tensor, step: int) -> None:
        self.scalars[key] = float(value)

    def histogram(self, key: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        self.histograms[key] = np.asarray(values)

    def image(self, key: str, image: np.ndarray | torch.Tensor, step: int) -> None:
        self.images[key] = np.asarray(image)


def test_layers_are_recorded_and_missing_errors_left_out() -> None:
    notes = Notes()
    pictures.record_layers(notes, LAYERS)  # type: ignore[arg-type]
    assert notes.scalars == {
        "layer_kept_ratio/conv1": 1.0,
        "layer_kept_ratio/layer1.conv1": 0.25,
        "layer_kept_ratio/layer1.conv2": 0.5,
        "layer_error/layer1.conv1": 0.125,
    }
    assert notes.histograms["layers/error"].tolist() == [0.125]
    assert notes.histograms["layers/kept_ratio"].tolist() == [1.0, 0.25, 0.5]
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
