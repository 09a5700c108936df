"""Figures by matplotlib, an optional package: whether it is there, a figure with axes, its pixels."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from pocketprune.common.errors import UserError


def has_plots() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_plots() -> None:
    """Check that matplotlib is installed.

    Raises:
        UserError: it is not; the message names the extra that installs it.
    """
    if not has_plots():
        raise UserError('drawing: needs matplotlib, not installed here; pip install "pocketprune[plots]" installs it')


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of so many inches, at 100 pixels each, that no screen shows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as a picture (H, W, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
