"""The curves of a run, read back from TensorBoard's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketprune.reporting.scales import Point

HEAD = struct.Struct("<QI")  # length and checksum before a record, a checksum of four bytes after it


def read_curves(folder: Path) -> dict[str, list[Point]]:
    """Return every number that was recorded under a folder: tag -> (step, value), by step.

    What an interrupted run had recorded beyond the step that it was resumed from gives way to what came later.
    """
    events = [event for path in sorted(folder.glob("**/events.out.tfevents.*")) for event in _events(path)]
    curves: dict[str, list[Point]] = {}
    for event in sorted(events, key=lambda event: event.wall_time):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curve = curves.setdefault(value.tag, [])
                while curve and curve[-1][0] >= event.step:
                    curve.pop()
                curve.append((float(event.step), float(value.simple_value)))
    return curves


def _events(path: Path) -> Iterator[Any]:
    """Yield the events of a file up to its end, or to where it is damaged."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    data, at = path.read_bytes(), 0
    while at + HEAD.size <= len(data):
        length, _ = HEAD.unpack_from(data, at)
        record = data[at + HEAD.size : at + HEAD.size + length]
        at += HEAD.size + length + 4
        try:
            yield Event.FromString(record)
        except DecodeError:
            return
