"""The formats of exported files: how each is written and opened."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pocketprune.deploy.programs import exported_program, in_plain_operators, onnx_model
from pocketprune.deploy.runtimes import Runner, open_onnx, open_openvino, open_pt2
from pocketprune.graph.tracing import ExampleInputs

ONE_FILE_BYTES = 1 << 30
"""Larger weights lie beside an ONNX file, whose own limit is 2 GB."""


def _write_onnx(net: nn.Module, inputs: ExampleInputs, path: Path) -> bool:
    model, dynamic = onnx_model(net, inputs)
    large = sum(t.numel() * t.element_size() for t in net.state_dict().values()) > ONE_FILE_BYTES
    model.save(os.fspath(path), external_data=large)
    return dynamic


def _write_pt2(net: nn.Module, inputs: ExampleInputs, path: Path) -> bool:
    program, shapes = exported_program(net, inputs)
    torch.export.save(in_plain_operators(program), os.fspath(path))
    return shapes is not None


def _write_openvino(net: nn.Module, inputs: ExampleInputs, path: Path) -> bool:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx_path = Path(folder, "model.onnx")
        dynamic = _write_onnx(net, inputs, onnx_path)
        openvino.save_model(openvino.Core().read_model(onnx_path), path, compress_to_fp16=False)
    return dynamic


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is written and opened.

    Attributes:
        name: the format's name for people.
        suffix: how the names of its files end.
        write: writes a network to a path and returns whether the file's batch size is free.
        load: opens the file.
        packages: what must be installed.
    """

    name: str
    suffix: str
    write: Callable[[nn.Module, ExampleInputs, Path], bool]
    load: Callable[[Path], Runner]
    packages: tuple[str, ...] = ()


FORMATS = {
    f.name: f
    for f in (
        Format("ONNX", ".onnx", _write_onnx, open_onnx, ("onnx", "onnxscript", "onnxruntime")),
        Format("torch.export", ".pt2", _write_pt2, open_pt2),
        Format("OpenVINO", ".xml", _write_openvino, open_openvino, ("openvino", "onnx", "onnxscript")),
    )
}
