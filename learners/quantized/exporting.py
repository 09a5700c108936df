"""A network in integers in other runtimes: written, compared, measured against the same network in floats."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

import pocketprune
from learners.context import RunContext
from pocketprune import Exported
from pocketprune.deploy.export import TOLERANCE
from pocketprune.deploy.formats import FORMATS
from pocketprune.deploy.runtimes import Runner, latencies
from pocketprune.reporting import report
from pocketprune.reporting.tables import table
from pocketprune.training.distributed import is_main

FLOAT_FILE = "float_model.pt"
TOLERANCES = {"int8": 0.25, "float": TOLERANCE}
"""Where a kernel rounds to the neighbouring code, the outputs move; the accuracy in the runtime shows how much."""
WRITERS: dict[str, tuple[str, Callable[..., Exported]]] = {
    "ONNX": (".onnx", pocketprune.export_onnx),
    "OpenVINO": (".xml", pocketprune.export_openvino),
}


def write_both(run: RunContext, net: nn.Module) -> None:
    """Write the network in integers and in floats as ONNX and OpenVINO files, and tell what each does there.

    The report gets a section: for each file its size, its accuracy on the test set in its runtime, its largest
    difference from PyTorch, and its milliseconds, measured in turns with the other network's.
    """
    if not is_main():
        return
    nets = {"int8": net, "float": pocketprune.load(run.workdir / FLOAT_FILE, run.net)}
    batch = run.images(run.config.run.latency_batch).cpu()
    rows = []
    for kind, (suffix, write) in WRITERS.items():
        files = {
            name: write(run.workdir / f"{name}_model{suffix}", one, batch, tolerance=TOLERANCES[name])
            for name, one in nets.items()
        }
        runners = {name: FORMATS[kind].load(file.path) for name, file in files.items()}
        times = {size: _times(list(runners.values()), batch[:size]) for size in sorted({1, len(batch)})}
        for number, (name, file) in enumerate(files.items()):
            row = {"runtime": kind, "network": name, "file": file.path.name, "size": _size(file.path),
                   "accuracy": _accuracy(run, runners[name]), "max_difference": file.max_difference}  # fmt: skip
            rows.append(row | {f"latency_ms_batch_{size}": ms[number] for size, ms in times.items()})
    report.add(run.report_path, "integer_export", rows)
    run.say(_table(rows))


def _times(runners: list[Runner], batch: Tensor) -> list[float]:
    return latencies([lambda runner=runner: runner(batch) for runner in runners])  # type: ignore[misc]


def _size(path: Path) -> int:
    """Bytes of a file, or of an OpenVINO file's weights and its own."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0)


def _accuracy(run: RunContext, runner: Runner) -> float:
    """The share of the test images that a runtime classifies rightly."""
    right = total = 0
    for images, labels in run.dataset.test.batches(run.config.data.batch_size_eval):
        right += int((runner(images.cpu())[0].argmax(1) == labels.cpu()).sum())
        total += len(labels)
    return right / total


def _table(rows: list[dict[str, object]]) -> str:
    names = [name for name in rows[0] if name.startswith("latency")]
    head = [
        "runtime",
        "network",
        "file",
        "size",
        "accuracy",
        "max difference",
        *(n.removeprefix("latency_ms_") for n in names),
    ]
    cells = [
        [str(row["runtime"]), str(row["network"]), str(row["file"]), f"{row['size'] / 1e6:.3f} MB",  # type: ignore[operator]
         f"{row['accuracy']:.2%}", f"{row['max_difference']:.1e}", *(f"{row[name]:.2f} ms" for name in names)]
        for row in rows
    ]  # fmt: skip
    return table([[name.replace("_", " ") for name in head], *cells], left=(0, 1, 2))
