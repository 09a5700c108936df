"""A small network for runs of the filter learner, as a person's own file."""

from pathlib import Path

NETS = """
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.Flatten(), nn.Linear(12 * 16, num_classes))
"""


def small_run(folder: Path, *more: str) -> list[str]:
    """Return a command line of the filter learner on the small network, whose groups are 0 (8), 3 (12) and 6 (12)."""
    (folder / "nets.py").write_text(NETS)
    flags = ["--learner=filter", f"--net={folder / 'nets.py'}:build", f"--workdir={folder / 'out'}"]
    return [
        *flags,
        "--nb_epochs=2",
        "--lrn_rate_init=0.02",
        "--latency_batch=1",
        "--device=cpu",
        "--threads=1",
        "--fp_bn_images=200",
        *more,
    ]
