"""report.json: written whole, or a section added to it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketprune.channel_pruning.results import LayerResult
from pocketprune.common.errors import UserError
from pocketprune.common.files import read_json, write_atomically


def write(path: Path, report: Mapping[str, object]) -> None:
    """Write report.json, entirely or not at all. Infinities and NaN become null, as JSON has none."""
    write_atomically(path, (json.dumps(_plain(report), indent=2) + "\n").encode())


def add(path: Path, section: str, content: object) -> None:
    """Put a section into the report.json of an earlier run, or start one with it."""
    try:
        report = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; remove it to start a new one") from error
    write(path, report | {section: content})


def layer_entries(layers: Sequence[LayerResult]) -> list[dict[str, object]]:
    """Return the "layers" of report.json."""
    names = ("name", "channels", "kept", "preserve_ratio", "error_before", "error_after", "note")
    return [{name: getattr(layer, name) for name in names} for layer in layers]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
