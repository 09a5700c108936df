"""What a report and a terminal say of the files that a network was exported to."""

from __future__ import annotations

from collections.abc import Sequence

from pocketprune.deploy.export import Exported
from pocketprune.reporting.tables import table


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
