"""The file of a stripped network, in the format that its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.inputs import Example
from pocketprune.deploy.export import export_onnx, export_openvino, export_pt2

WRITERS = {".onnx": export_onnx, ".xml": export_openvino, ".pt2": export_pt2}


def check(save_path: str, save_format: str | None) -> None:
    """Raise UserError for a format or a name that is not accepted."""
    if save_format is not None and not save_format.startswith("onnx"):
        raise UserError(f"'{save_format}' given; onnx is accepted", argument="save_format")
    if Path(save_path).suffix not in WRITERS:
        raise UserError(
            f"'{save_path}' given; a name that ends in {', '.join(WRITERS)} is accepted", argument="save_path"
        )


def write(
    net: nn.Module, example: Example, save_path: str, model_args: tuple[Any, ...] | None, tolerance: float
) -> None:
    """Write a network as a verified file.

    Args:
        net: the network.
        example: its arguments, by position and by name.
        save_path: the file.
        model_args: more arguments; the last may be a dict of keywords.
        tolerance: largest difference of the file's outputs, as a share of the largest one.
    """
    args, kwargs = example
    more = list(model_args or ())
    keywords = more.pop() if more and isinstance(more[-1], dict) else {}
    inputs = ((*args, *more), {**kwargs, **keywords})
    WRITERS[Path(save_path).suffix](save_path, net.eval(), inputs, tolerance=tolerance)
