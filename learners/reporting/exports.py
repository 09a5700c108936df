"""The files of a network for other runtimes: written, measured, told."""

from collections.abc import Sequence

from torch import nn

import pocketprune
from learners.context import RunContext
from learners.reporting import report
from learners.reporting.tables import table
from pocketprune import Exported
from pocketprune.reporting.run_page import write_page
from pocketprune.training.distributed import is_main

FORMATS = {".onnx": pocketprune.export_onnx, ".xml": pocketprune.export_openvino, ".pt2": pocketprune.export_pt2}


def write_files(run: RunContext, net: nn.Module, stem: str) -> None:
    """Write a network in every format, in the first process; the report gets a section on the files."""
    batch = run.images(run.config.run.latency_batch)
    if is_main():
        files = [write((run.workdir / stem).with_suffix(suffix), net, batch) for suffix, write in FORMATS.items()]
        report.add(run.report_path, "export", export_entries(files, len(batch)))
        write_page(run.workdir)
        run.say(export_table(files, len(batch)))


def export_entries(files: Sequence[Exported], batch: int) -> dict[str, object]:
    """Return the "export" of report.json; latencies at a batch of `batch` images on the CPU, sizes in bytes."""
    names = ("format", "size", "batch", "latency_ms", "torch_latency_ms", "max_difference")
    entries = [{"file": file.path.name} | {name: getattr(file, name) for name in names} for file in files]
    return {"latency_batch": batch, "files": entries}


def export_table(files: Sequence[Exported], batch: int) -> str:
    """Return the files written for other runtimes, each with its speed and its distance from PyTorch."""
    rows = [["format", "file", "size", f"latency, batch {batch}", "in PyTorch", "max difference"]]
    for file in files:
        times = [f"{file.latency_ms:.2f} ms", f"{file.torch_latency_ms:.2f} ms"]
        size, difference = f"{file.size / 1e6:.2f} MB", f"{file.max_difference:.1e}"
        rows.append([file.format, str(file.path), size, *times, difference])
    return table(rows, left=(0, 1))
