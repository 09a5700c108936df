"""The files of a network for other runtimes: written, measured, told."""

from torch import nn

import pocketprune
from learners.context import RunContext
from pocketprune.reporting import report
from pocketprune.reporting.exports import export_entries, export_table
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
