"""What integers change in a row of the report: bits and bytes."""

import tempfile
from pathlib import Path

from torch import nn

import pocketprune
from learners.context import RunContext
from learners.measuring import Row
from pocketprune.quantization.conversion import bits_of
from pocketprune.reporting import stages
from pocketprune.reporting.stages import Column, percent

COLUMNS = stages.COLUMNS | {
    "bits": Column("bits", "{:.3g}".format),
    "file_mb": Column("file", "{:.3f} MB".format, percent),
}

PACKED = {"packed_mb": Column("packed", "{:.3f} MB".format, percent)}


def sizes(run: RunContext, net: nn.Module) -> Row:
    """Return the mean bits of a network's weights and the megabytes of its file."""
    with tempfile.TemporaryDirectory(dir=run.workdir, prefix=".") as folder:
        path = Path(folder, "net.pt")
        pocketprune.save(path, net)
        bits, packed = bits_of(net)
        row = {"bits": bits, "file_mb": path.stat().st_size / 1e6}
        return row if bits in (8, 32) else row | {"packed_mb": packed / 1e6}
