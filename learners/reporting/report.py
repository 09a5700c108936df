"""What a run tells: report.json and tables for the terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketprune import ChannelGroup, Exported, LayerResult, PrunableLayer
from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically

# The networks a run measures, in the order they arise: key in report.json -> title in the table.
STAGES = {"dense": "dense", "before_finetune": "before fine-tuning", "pruned": "final"}


def write(path: Path, report: Mapping[str, object]) -> None:
    """Write report.json, entirely or not at all. Infinities and NaN become null, as JSON has none."""
    write_atomically(path, (json.dumps(_plain(report), indent=2) + "\n").encode())


def add(path: Path, section: str, content: object) -> None:
    """Put a section into the report.json of an earlier run, or start one with it."""
    try:
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); remove it to start a new one") from error
    write(path, report | {section: content})


def export_entries(files: Sequence[Exported], batch: int) -> dict[str, object]:
    """The "export" of report.json; latencies at a batch of `batch` images on the CPU, sizes in bytes."""
    names = ("format", "size", "batch", "latency_ms", "torch_latency_ms", "max_difference")
    entries = [{"file": file.path.name} | {name: getattr(file, name) for name in names} for file in files]
    return {"latency_batch": batch, "files": entries}


def layer_entries(layers: Sequence[LayerResult]) -> list[dict[str, object]]:
    """The "layers" of report.json."""
    names = ("name", "channels", "kept", "preserve_ratio", "error_before", "error_after", "note")
    return [{name: getattr(layer, name) for name in names} for layer in layers]


def stage_rows(stages: Mapping[str, dict], recovery: Mapping[str, dict]) -> list[dict]:
    """The "stages" of report.json, the rows of its table: STAGES, in place of the second the steps of a recovery."""
    titled = {title: stages[key] for key, title in STAGES.items() if key != "before_finetune" or not recovery}
    names = ["dense", *recovery, *list(titled)[1:]]
    return [{"name": name, **{**titled, **recovery}[name]} for name in names]


def stage_table(report: Mapping[str, dict], latency_batch: int) -> str:
    """The networks measured: accuracy, loss, and what they cost, also as a share of the first one's cost."""
    stages = {row["name"]: row for row in report.get("stages", ())}
    stages = stages or {title: report[key] for key, title in STAGES.items() if key in report}
    first = next(iter(stages.values()))
    rows = [["", "accuracy", "loss", "MACs", "", "params", "", f"latency, batch {latency_batch}", ""]]
    for title, stage in stages.items():
        quality = [f"{stage['accuracy']:.2%}", f"{stage['loss']:.4f}"]
        macs = [count(stage["macs"]), f"{stage['macs'] / first['macs']:.1%}"]
        params = [count(stage["params"]), f"{stage['params'] / first['params']:.1%}"]
        faster = first["latency_ms"] / stage["latency_ms"]
        rows.append([title, *quality, *macs, *params, f"{stage['latency_ms']:.2f} ms", f"{faster:.2f}x"])
    return table(rows)


def layer_table(layers: Sequence[LayerResult]) -> str:
    """What pruning did to each layer. Errors: shares of its output's variance, without and with refit."""
    rows = [["", "layer", "channels", "kept", "error", "refitted", "note"]]
    for layer in layers:
        errors = [_error(layer.error_before), _error(layer.error_after)]
        sizes = [str(layer.channels), str(layer.kept)]
        rows.append([str(layer.index), layer.name, *sizes, *errors, layer.note])
    return table(rows, left=(1, 6))


def layer_listing(layers: Sequence[PrunableLayer]) -> str:
    """The prunable layers, numbered as in a ratio list: what can be removed from each, or why nothing can."""
    rows = [["", "layer", "in", "out", "kernel", "MACs", "input from", "can input channels be removed?"]]
    for layer in layers:
        sizes = [str(layer.channels), str(layer.out_channels), _kernel(layer.kernel), count(layer.macs)]
        verdict = ("yes" if layer.removable else "no") + (f": {layer.reason}" if layer.reason else "")
        rows.append([str(layer.index), layer.name, *sizes, layer.input_from, verdict])
    return table(rows, left=(1, 6, 7))


def group_listing(groups: Sequence[ChannelGroup]) -> str:
    """The channel groups: what writes and reads each, and why its channels cannot be removed if so."""
    rows = [["channel group", "channels", "written by -> read by", "can channels be removed?"]]
    for group in groups:
        path = f"{_few(group.producers)} -> {_few((*group.consumers, *group.products)) or 'nothing'}"
        verdict = ("yes" if group.exact else "inexact") if group.prunable else f"no: {group.reason}"
        rows.append([group.name, str(group.size), path, verdict])
    return table(rows, left=(0, 2, 3))


def _few(names: Sequence[str], most: int = 2) -> str:
    """The first names, joined, and how many more there are."""
    return " + ".join([*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])])


def export_table(files: Sequence[Exported], batch: int) -> str:
    """The files written for other runtimes, each with its speed and its distance from PyTorch."""
    rows = [["format", "file", "size", f"latency, batch {batch}", "in PyTorch", "max difference"]]
    for file in files:
        times = [f"{file.latency_ms:.2f} ms", f"{file.torch_latency_ms:.2f} ms"]
        size, difference = f"{file.size / 1e6:.2f} MB", f"{file.max_difference:.1e}"
        rows.append([file.format, str(file.path), size, *times, difference])
    return table(rows, left=(0, 1))


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Rows of cells as aligned text, the first row its head; columns in `left` are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def _error(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _kernel(kernel: Sequence[int] | int) -> str:
    return str(kernel) if isinstance(kernel, int) else "x".join(map(str, kernel))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
