"""Pictures of a search, with and without a plotting library."""

import pytest
import torch

from learners.reporting.search_pictures import draw_cloud, draw_ratios, draw_sensitivity
from pocketprune.search import Rollout, SensitivityTable
from pocketprune.search.table import Sensitivity


def test_pictures_need_no_plotting_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rollout = Rollout(0, "rollout", (4, 2), 0.8, 0.5, 0.2, 100.0, 0.5, 0.8)
    dense = Sensitivity("(dense)", 0, 0, 0.0, 0.9, 0.3, 0.0)
    lines = (Sensitivity("a", 8, 4, 0.1, 0.8, 0.5, 0.2), Sensitivity("b", 8, 2, 0.3, 0.6, 1.0, 0.7))
    table = SensitivityTable(dense, lines)
    pictures = [
        draw_ratios(["a", "b"], torch.tensor([[0.5, 1.0]]).numpy()),
        draw_cloud([rollout, rollout], "macs"),
        draw_sensitivity(table),
    ]
    for picture in pictures:
        assert picture.ndim == 3
        assert str(picture.dtype) == "uint8"
        assert picture.min() < 255
