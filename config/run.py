"""The settings of every run: what to do and where, the data, the network."""

from dataclasses import dataclass

from config.settings import COUNT, COUNT_OR_ZERO, POSITIVE, Concern, Interval, setting


@dataclass(frozen=True)
class RunConfig(Concern):
    """What to do, and where"""

    learner: str = setting(
        "full-prec", "what is done: full-prec trains the network as it is; channel prunes its channels"
    )
    exec_mode: str = setting(
        "train",
        "train runs the learner; eval measures the trained network, or with --learner channel the workdir's "
        "pruned_model.pt; export writes it as ONNX, OpenVINO and torch.export files; layers shows the "
        "prunable layers and the channel groups and writes a ratio-list template",
        accept=("train", "eval", "export", "layers"),
    )
    workdir: str = setting(
        "", "folder for everything the run writes; none: one under runs/, named after network and data set"
    )
    seed: int = setting(0, "the same seed, data and machine give the same result", accept=Interval(0, 2**32 - 1))
    overwrite: bool = setting(
        False, "start over in a --workdir that holds a run of other flags; its trained dense network stays"
    )
    device: str = setting("auto", "auto takes the GPU if there is one; or cpu, cuda, cuda:1, ...")
    threads: int = setting(0, "CPU threads for tensor work; 0: PyTorch's choice", accept=COUNT_OR_ZERO)
    latency_batch: int = setting(64, "images in the batch whose latency is reported", accept=COUNT)
    plot: bool = setting(
        False,
        "draw the network's channel groups, kept against removed, as channel_groups.png in --workdir, after "
        "pruning or with --exec_mode layers; needs the extra plots",
    )


@dataclass(frozen=True)
class DataConfig(Concern):
    """Data"""

    dataset: str = setting("digits", "digits, cifar10, fashion_mnist, image_folder, or your own as file.py:callable")
    data_dir: str = setting("data", "folder that holds the data set; digits needs none")
    download: bool = setting(False, "fetch a missing data set into --data_dir, if it has an official address")
    nb_smpls_val: int | None = setting(
        None, "training images held out for validation; the same ones for the same --seed", accept=COUNT
    )
    image_size: int | None = setting(None, "side of the square images of image_folder", accept=COUNT)
    nb_workers: int | None = setting(None, "processes that decode image_folder's files", accept=COUNT_OR_ZERO)
    batch_size: int = setting(128, "images per training step and per calibration batch", accept=COUNT)
    batch_size_eval: int = setting(100, "images per batch when measuring accuracy", accept=COUNT)


@dataclass(frozen=True)
class NetConfig(Concern):
    """Network"""

    net: str = setting(
        "resnet",
        "lenet, plain, resnet, resnet_imagenet, vgg16_bn, mobilenet_v1, mobilenet_v2, or your own as "
        "file.py:callable or module:callable",
    )
    resnet_size: int | None = setting(
        None,
        "layers: 6n + 2 for resnet and plain (20 if not given); 18, 34 or 50 for resnet_imagenet (18)",
        accept=COUNT,
    )
    resnet_version: int = setting(2, "1: post-activation blocks; 2: pre-activation blocks", accept=Interval(1, 2))
    resnet_shortcut: str = setting(
        "projection",
        "where a block changes shape: a 1x1 convolution (projection) or zero padding (pad)",
        accept=("projection", "pad"),
    )
    mobilenet_depth_mult: float | None = setting(
        None, "share of mobilenet_v1's and mobilenet_v2's channels in every layer", accept=POSITIVE
    )
    init_checkpoint: str = setting(
        "",
        "the network to start with: a state dict, or what an earlier run saved, which may be pruned already; none: the "
        "workdir's own dense network, trained first if it has none",
    )
