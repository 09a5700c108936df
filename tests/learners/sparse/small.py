"""A small network for runs of the sparse learners, as a person's own file."""

from pathlib import Path

NETS = """
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, num_classes))

def convolutions(num_classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, num_classes))
"""


def small_run(folder: Path, *more: str, learner: str = "sparse", net: str = "build") -> list[str]:
    """Return a command line of a sparse learner on the small network, whose layers are 1, 3 and 5."""
    (folder / "nets.py").write_text(NETS)
    flags = [f"--learner={learner}", f"--net={folder / 'nets.py'}:{net}", f"--workdir={folder / 'out'}"]
    return [*flags, "--nb_epochs=3", "--lrn_rate_init=0.05", "--latency_batch=1", "--device=cpu", "--threads=1", *more]
