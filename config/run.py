"""The settings of what to do, and where."""

from dataclasses import dataclass

from config.settings import Concern, setting
from pocketprune.channel_pruning.tasks import CLASSIFICATION
from pocketprune.common.options import COUNT, Interval
from pocketprune.compat.distiller.summaries import SUMMARIES
from pocketprune.compression.sensitivity import STRUCTURES


@dataclass(frozen=True)
class RunConfig(Concern):
    """The settings of the run itself."""

    title = "What to do, and where"

    learner: str = setting(
        "full-prec",
        "what is done: full-prec trains the network as it is; channel prunes its channels by reconstruction; "
        "dis-chn-pruned chooses them with auxiliary classifiers, as PocketFlow; "
        "filter masks channels while it trains the network, and removes them; quant turns a network into integers; "
        "uniform and non-uniform simulate 2 to 8 bits, evenly spaced or by codebooks; "
        "sparse masks single weights; weight-sparse is PocketFlow's way to the same; auto-compress anneals ratios, "
        "trains towards them and thins the network, in rounds",
    )
    task: str = setting(
        CLASSIFICATION,
        "what the network is for: classification of the data set's images, or with --learner channel your own, a "
        "pocketprune.Task that file.py:callable returns; its metric judges networks, and the report names it",
    )
    exec_mode: str = setting(
        "train",
        "train runs the learner; eval measures the trained network, or with --learner channel or filter the "
        "workdir's pruned_model.pt; export writes it as ONNX, OpenVINO and torch.export files; layers shows the "
        "prunable layers and the channel groups and writes a ratio-list template, or with --learner filter a policy",
        accept=("train", "eval", "export", "layers"),
    )
    summary: str = setting(
        "none",
        "print a summary and end: sparsity (of every weight), compute (shapes and multiply-adds of every layer) or "
        "model (modules); of the trained network with --exec_mode eval, else of the one that a run starts with",
        accept=("none", *SUMMARIES),
    )
    sensitivity: str = setting(
        "none",
        "mask one weight at a time at levels from 0 to 0.95, by element, filter or channel, measure the network on the "
        "validation images, write sensitivity.csv (and .png with the extra plots) to --workdir, and end",
        accept=("none", *STRUCTURES),
    )
    workdir: str = setting(
        "", "folder for everything the run writes; none: one under runs/, named after network and data set"
    )
    seed: int = setting(
        0, "the same seed, data and machine give the same result", accept=Interval(0, 2**32 - 1, whole=True)
    )
    overwrite: bool = setting(
        False, "start over in a --workdir that holds a run of other flags; its trained dense network stays"
    )
    device: str = setting("auto", "auto takes the GPU if there is one; or cpu, cuda, cuda:1, ...")
    threads: int = setting(0, "CPU threads for tensor work; 0: PyTorch's choice", accept=Interval(0, 1024, whole=True))
    latency_batch: int = setting(64, "images in the batch whose latency is reported", accept=COUNT)
    plot: bool = setting(
        False,
        "draw the network's channel groups, kept against removed, as channel_groups.png in --workdir, after "
        "pruning or with --exec_mode layers; needs the extra plots",
    )
