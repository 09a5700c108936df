"""Write networks as files for other runtimes: ONNX, torch.export (.pt2), OpenVINO IR.

Each file is loaded again and compared with the PyTorch network at two batch sizes before it takes its place. A file
that computes something else is not written.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.deploy.formats import FORMATS, Format
from pocketprune.deploy.programs import quiet, root_line
from pocketprune.deploy.runtimes import Runner, latencies, require_packages, run_eagerly
from pocketprune.graph.admission import refuse_modeless, refuse_others
from pocketprune.graph.nodes import tensors_in
from pocketprune.graph.tracing import ExampleInputs, batch_of, copied, split_inputs
from pocketprune.structure.batches import at_batch

TOLERANCE = 1e-4
"""The largest difference accepted, as a share of the output's largest value."""
OTHER_BATCH = 3
"""The batch size tried besides 1."""


@dataclass(frozen=True)
class Exported:
    """Describe a file that was written and verified.

    Attributes:
        format: "ONNX", "torch.export" or "OpenVINO".
        path: the file; OpenVINO's weights lie beside it in a .bin.
        size: bytes of the file and what lies beside it.
        batch: the one batch size that the network's own code allows; None where it allows any.
        latency_ms: median milliseconds at the example inputs, in the format's own runtime on the CPU.
        torch_latency_ms: the same of the PyTorch network; the two were measured in turns.
        max_difference: largest absolute difference from the PyTorch output, over the batch sizes tried.
    """

    format: str
    path: Path
    size: int
    batch: int | None
    latency_ms: float
    torch_latency_ms: float
    max_difference: float


def check_extra() -> None:
    """Check that the packages of every format are installed.

    Raises:
        UserError: one is not; the message names the extra that installs it.
    """
    require_packages("export", *dict.fromkeys(name for kind in FORMATS.values() for name in kind.packages))


def export_onnx(
    path: str | os.PathLike[str],
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    tolerance: float = TOLERANCE,
    repeats: int = 20,
) -> Exported:
    """Write a network in evaluation mode as an ONNX model, of any batch size where its code allows that.

    Args:
        path: where the model is written; it ends in .onnx.
        net: the network; it stays as it is.
        example_inputs: what the network is traced and timed with; the first axis of its tensors is the batch.
        tolerance: largest difference accepted, as a share of the output's largest value.
        repeats: number of timed runs.

    Raises:
        UserError: the extra `export` is not installed, the network cannot be exported, or the model computes
            something else than the network; nothing is written then.
    """
    require_packages("export_onnx", *FORMATS["ONNX"].packages)
    return _export(Path(path), net, example_inputs, FORMATS["ONNX"], tolerance, repeats)


def export_pt2(
    path: str | os.PathLike[str],
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    tolerance: float = TOLERANCE,
    repeats: int = 20,
) -> Exported:
    """Write a network as a torch.export program (.pt2), which PyTorch runs without the network's own code.

    The arguments are those of `export_onnx`. No extra is needed.
    """
    return _export(Path(path), net, example_inputs, FORMATS["torch.export"], tolerance, repeats)


def export_openvino(
    path: str | os.PathLike[str],
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    tolerance: float = TOLERANCE,
    repeats: int = 20,
) -> Exported:
    """Write a network as OpenVINO IR: `path` (.xml), and its float32 weights beside it (.bin).

    The arguments are those of `export_onnx`.
    """
    require_packages("export_openvino", *FORMATS["OpenVINO"].packages)
    return _export(Path(path), net, example_inputs, FORMATS["OpenVINO"], tolerance, repeats)


def _export(
    path: Path, net: nn.Module, inputs: ExampleInputs, kind: Format, tolerance: float, repeats: int
) -> Exported:
    """Write a network in one format, compare the file with the network, time both, and move the file to `path`."""
    if path.suffix != kind.suffix:
        raise UserError(f"{path}: a file of the format {kind.name} ends in {kind.suffix}")
    refuse_others(net)
    refuse_modeless(net)
    net, inputs = _on_cpu(net, inputs)
    eager = run_eagerly(net)
    with untouched(net), evaluation_mode(net), _draft_of(path) as draft:
        fresh = _copied_if_changed(eager, inputs)
        try:
            with quiet():
                dynamic = kind.write(net, inputs, draft)
            runner = kind.load(draft)
        except Exception as error:  # exporters raise whatever a network's operators make them
            raise UserError(
                f"{path}: network {type(net).__name__} cannot be exported to {kind.name}: {root_line(error)}"
            ) from error
        sizes = (1, OTHER_BATCH) if dynamic else (batch_of(inputs),)
        differences = [_difference(path, eager, runner, at_batch(inputs, size), tolerance) for size in sizes]
        torch_ms, own_ms = latencies([lambda: eager(fresh(inputs)), lambda: runner(fresh(inputs))], repeats=repeats)
        written = sum(file.stat().st_size for file in draft.parent.iterdir())
    batch = None if dynamic else batch_of(inputs)
    return Exported(kind.name, path, written, batch, own_ms, torch_ms, max(differences))


def _copied_if_changed(eager: Runner, inputs: ExampleInputs) -> Callable[[ExampleInputs], ExampleInputs]:
    """What prepares the inputs of one timed run: a copy where the network works in place, else nothing."""
    given = copied(inputs)
    with contextlib.suppress(Exception):  # what the network does not take is told by whatever exports it
        eager(given)
    before, after = tensors_in(inputs), tensors_in(given)
    return copied if not all(map(torch.equal, before, after)) else lambda same: same


def _on_cpu(net: nn.Module, inputs: ExampleInputs) -> tuple[nn.Module, ExampleInputs]:
    """Return the network and its inputs on the CPU; they are copied if they are elsewhere."""
    args, kwargs = split_inputs(inputs)
    moved = pytree.tree_map(lambda v: v.detach().cpu() if isinstance(v, Tensor) else v, (args, kwargs))
    elsewhere = any(t.device.type != "cpu" for t in [*net.parameters(), *net.buffers()])
    return (copy.deepcopy(net).cpu() if elsewhere else net), moved


@contextlib.contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    """Give a place to write a file and its companions to. At the end they move beside `path`, if all went well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    with folder:
        draft = Path(folder.name, path.name)
        yield draft
        companions = [file for file in draft.parent.iterdir() if file != draft]
        for file in [*companions, draft]:
            os.replace(file, path.parent / file.name)


def _difference(path: Path, eager: Runner, runner: Runner, inputs: ExampleInputs, tolerance: float) -> float:
    """Return the largest absolute difference between the outputs, and refuse one that is more than tolerated."""
    try:
        expected, made = eager(copied(inputs)), runner(copied(inputs))
    except Exception as error:  # runtimes raise errors of their own
        raise UserError(
            f"{path}: the exported network does not run at batch {batch_of(inputs)}: "
            f"{root_line(error)}; nothing was written"
        ) from error
    largest = 0.0
    for number, (mine, theirs) in enumerate(zip(expected, made, strict=True)):
        gap, scale = _gap(mine, theirs)
        if not gap <= tolerance * max(scale, 1e-6):
            raise UserError(
                f"{path}: output {number} of the exported network differs from PyTorch's by {gap:.3g} "
                f"at batch {batch_of(inputs)} (its largest value is {scale:.3g}); nothing was written"
            )
        largest = max(largest, gap)
    return largest


def _gap(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference and the largest value. Two infinite or two undefined values are equal."""
    if a.shape != b.shape:
        return math.inf, 0.0
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    same = (a == b) | (a.isnan() & b.isnan())
    gaps, finite = (a - b)[~same].abs(), a[a.isfinite()].abs()
    return (
        float(gaps.nan_to_num(nan=math.inf).max()) if gaps.numel() else 0.0,
        float(finite.max()) if finite.numel() else 0.0,
    )
