"""Load exported networks from their files and run them on the CPU: ONNX Runtime, OpenVINO, torch.export.

Every runner takes example inputs (see `ExampleInputs`) and returns the output's tensors in order. All compute in
float32 where the network does, with the number of threads that PyTorch uses.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.graph.nodes import tensors_in
from pocketprune.graph.tracing import ExampleInputs, split_inputs

Runner = Callable[[ExampleInputs], list[Tensor]]


def require_packages(purpose: str, *names: str) -> None:
    """Check that packages of the extra `export` are installed.

    Args:
        purpose: what needs them, for the message.
        names: the packages.

    Raises:
        UserError: one is missing; the message names the extra.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{purpose}: needs {' and '.join(missing)}, not installed here; "
            'pip install "pocketprune[export]" installs it'
        )


def tensor_inputs(inputs: ExampleInputs) -> list[Tensor]:
    """Return the tensors among the inputs, in the order of the exported model's own inputs."""
    return tensors_in(split_inputs(inputs))


def open_pt2(path: str | os.PathLike[str]) -> Runner:
    """Open a torch.export program."""
    module = torch.export.load(os.fspath(path)).module()

    def run(inputs: ExampleInputs) -> list[Tensor]:
        args, kwargs = split_inputs(inputs)
        with torch.no_grad():
            return tensors_in(module(*args, **kwargs))

    return run


def open_onnx(path: str | os.PathLike[str], threads: int | None = None) -> Runner:
    """Open an ONNX model in ONNX Runtime, all graph optimisations on.

    Args:
        path: the model.
        threads: how many threads it runs in; None for as many as PyTorch uses.

    Raises:
        UserError: onnxruntime is not installed.
    """
    require_packages("ONNX Runtime", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: ExampleInputs) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in tensor_inputs(inputs)]
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


def open_openvino(path: str | os.PathLike[str], threads: int | None = None) -> Runner:
    """Open an OpenVINO IR (or ONNX) model on OpenVINO's CPU device, tuned for latency.

    Args:
        path: the model.
        threads: how many threads it runs in; None for as many as PyTorch uses.

    Raises:
        UserError: openvino is not installed.
    """
    require_packages("OpenVINO", "openvino")
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: ExampleInputs) -> list[Tensor]:
        arrays = [tensor.contiguous().numpy() for tensor in tensor_inputs(inputs)]
        made = request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(made[port].copy()) for port in compiled.outputs]

    return run


def run_eagerly(net: torch.nn.Module) -> Runner:
    """Return a runner of the network itself, as it is, without gradients."""

    def run(inputs: ExampleInputs) -> list[Tensor]:
        args, kwargs = split_inputs(inputs)
        with torch.no_grad():
            return tensors_in(net(*args, **kwargs))

    return run


def latencies(runners: Sequence[Callable[[], object]], *, repeats: int = 20, warmup: int = 2) -> list[float]:
    """Return the median milliseconds of each call.

    The calls take turns, so that what else the machine does hits all alike.

    Args:
        runners: the calls.
        repeats: number of timed turns.
        warmup: number of turns before them.
    """
    for _ in range(warmup):
        for runner in runners:
            runner()
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(repeats):
        for runner, mine in zip(runners, times, strict=True):
            start = time.perf_counter()
            runner()
            mine.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(mine) for mine in times]
