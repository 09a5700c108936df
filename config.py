"""All a run can be told: frozen dataclasses, one per concern; the command line's flags are their fields.

A new flag is a new field: its default, its teaching text and what it accepts stand in one place.
`Config.from_flags` reads a command line; `help_page` shows every flag, grouped by concern.
"""

import dataclasses
import math
import shutil
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from config_search import DdpgConfig, SearchConfig
from pocketprune.errors import UserError
from settings import (
    COUNT,
    COUNT_OR_ZERO,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Concern,
    Interval,
    described,
    kinds,
    nearest,
    setting,
)

HELP_FLAGS = frozenset({"--help", "-help", "-h", "--helpfull", "--helpshort"})


@dataclass(frozen=True)
class RunConfig(Concern):
    """What to do, and where"""

    learner: str = setting(
        "full-prec", "the recipe: full-prec trains the network as it is; channel prunes its channels"
    )
    exec_mode: str = setting(
        "train",
        "train runs the recipe; eval measures the trained network, or with --learner channel the workdir's "
        "pruned_model.pt; export writes it as ONNX, OpenVINO and torch.export files; layers shows the "
        "prunable layers and the channel groups and writes a ratio-list template",
        accept=("train", "eval", "export", "layers"),
    )
    workdir: str = setting(
        "", "folder for everything the run writes; none: one under runs/, named after network and data set"
    )
    seed: int = setting(
        0, "the same seed, data and machine give the same result", accept=Interval(0, 2**32 - 1)
    )
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

    dataset: str = setting(
        "digits", "digits, cifar10, fashion_mnist, image_folder, or your own as file.py:callable"
    )
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
    resnet_version: int = setting(
        2, "1: post-activation blocks; 2: pre-activation blocks", accept=Interval(1, 2)
    )
    resnet_shortcut: str = setting(
        "projection",
        "where a block changes shape: a 1x1 convolution (projection) or zero padding (pad)",
        accept=("projection", "pad"),
    )
    mobilenet_depth_mult: float | None = setting(
        None, "share of mobilenet_v1's and mobilenet_v2's channels in every layer", accept=POSITIVE
    )
    init_checkpoint: str = setting(
        "", "state dict of the full-precision network; none: the workdir's own, trained first if it has none"
    )


@dataclass(frozen=True)
class TrainConfig(Concern):
    """Training and fine-tuning"""

    lrn_rate_init: float | None = setting(
        None, "learning rate at the start, for a batch of --batch_size_norm images", accept=POSITIVE
    )
    batch_size_norm: int | None = setting(
        None, "batch size that --lrn_rate_init is meant for; other sizes scale it", accept=COUNT
    )
    optimizer: str = setting(
        "sgd", "sgd (with --momentum) or adam; for a few epochs after pruning adam at 0.002 is the better",
        accept=("sgd", "adam"),
    )
    momentum: float = setting(0.9, "momentum of SGD", accept=FRACTION)
    loss_w_dcy: float | None = setting(None, "weight decay", accept=NOT_NEGATIVE)
    nb_epochs: int | None = setting(None, "epochs of the full schedule", accept=COUNT)
    nb_epochs_rat: float = setting(
        1.0,
        "share of the full schedule that the learner trains for; with --learner channel this is its "
        "fine-tuning, and 0 means none",
        accept=NOT_NEGATIVE,
    )
    lrn_rate_dcy: str = setting(
        "piecewise",
        "how the learning rate falls: piecewise (in the network's own steps), cosine or constant",
        accept=("piecewise", "cosine", "constant"),
    )
    warmup: float = setting(
        0.0, "cosine: share of the schedule in which the rate first rises", accept=FRACTION
    )
    label_smoothing: float = setting(
        0.0, "share of each label spread evenly over all classes", accept=FRACTION
    )
    ema_decay: float = setting(
        0.0, "end with a moving average of the weights, of this decay a step; 0: without", accept=FRACTION
    )
    clip_norm: float = setting(0.0, "largest norm of the gradient; 0: no limit", accept=NOT_NEGATIVE)
    amp: str = setting("off", "bf16: compute in bfloat16 where that is safe", accept=("off", "bf16"))
    tf32: bool = setting(False, "TensorFloat-32 products while training on a GPU")
    channels_last: bool | None = setting(
        None, "channels-last memory layout while training; its own: on a CPU, or with --amp bf16, for the nets above"
    )
    compile: bool = setting(False, "train through torch.compile")
    sync_bn: bool = setting(False, "batch-norm statistics over all processes, on GPUs")
    summ_step: int = setting(100, "steps between two points of the training curves", accept=COUNT)
    save_step: int = setting(
        1000, "steps between two checkpoints; a killed run loses no more when started again", accept=COUNT
    )
    keep_checkpoints: int = setting(3, "checkpoints of each phase that are kept", accept=COUNT)


@dataclass(frozen=True)
class DistillationConfig(Concern):
    """Distillation, in every learner that trains"""

    enbl_dst: bool = setting(
        False, "also learn a teacher's softened outputs: the dense network's, unless --dst_checkpoint names another"
    )
    loss_w_dst: float = setting(4.0, "weight of the distance to the teacher", accept=NOT_NEGATIVE)
    tempr_dst: float = setting(4.0, "temperature that softens both outputs", accept=POSITIVE)
    dst_scale_gradient: bool = setting(
        True, "multiply the distance by the squared temperature, so that --loss_w_dst alone sets its weight; "
        "PocketFlow does not"
    )
    dst_checkpoint: str = setting("", "state dict of the teacher; none: the dense network teaches")
    dst_net: str = setting("", "the teacher's network, as for --net; none: the same as --net")
    dst_resnet_size: int | None = setting(None, "the teacher's --resnet_size", accept=COUNT)


@dataclass(frozen=True)
class ChannelPruningConfig(Concern):
    """Channel pruning (--learner channel)"""

    cp_prune_option: str = setting(
        "uniform",
        "where the preserve ratios come from: uniform (one for all layers), list (a file, one per layer) or auto "
        "(searched under a budget, see --cp_search)",
        accept=("uniform", "list", "auto"),
    )
    cp_uniform_preserve_ratio: float = setting(
        0.6, "uniform: share of its input channels that each layer keeps", accept=SHARE
    )
    cp_prune_list_file: str = setting(
        "ratio.list", "list: file of comma-separated preserve ratios, one per convolution in forward order"
    )
    cp_selection: str = setting(
        "lasso",
        "how channels are chosen: lasso (LARS path), obs (backward elimination with exact refit), magnitude "
        "or random; the weights are refitted by least squares after each of them",
        accept=("lasso", "obs", "magnitude", "random"),
    )
    cp_lasso: bool = setting(True, "PocketFlow's switch: --nocp_lasso is --cp_selection magnitude")
    cp_shared_input: str = setting(
        "sample",
        "a layer that reads a shared tensor (a residual sum): sample (keeps its own subset of it), couple "
        "(the shared channels go for all readers at once), keep (all stay)",
        accept=("sample", "couple", "keep"),
    )
    cp_nb_batches: int = setting(
        60, "batches of training images that the statistics come from (at most one epoch)", accept=COUNT
    )
    cp_nb_points_per_layer: int = setting(
        10, "positions per image and layer that the statistics come from; 0: all", accept=COUNT_OR_ZERO
    )
    cp_quadruple: bool = setting(False, "keep multiples of 4 channels")
    cp_channel_multiple: int = setting(1, "keep multiples of this many channels", accept=COUNT)
    cp_list_group: int = setting(
        1000, "prunable layers pruned at once; between groups the network is trained", accept=COUNT
    )
    cp_finetune: bool = setting(
        False, "between groups train briefly, by Adam, and not for the full schedule x --nb_epochs_rat"
    )
    cp_retrain: bool = setting(False, "between groups train for the full schedule even with --cp_finetune")
    cp_lrn_rate_ft: float = setting(1e-4, "learning rate of --cp_finetune", accept=POSITIVE)
    cp_nb_iters_ft_ratio: float = setting(
        0.2, "share of the full schedule that --cp_finetune takes", accept=SHARE
    )
    cp_bn_reestimate: bool = setting(
        False, "after pruning, measure the batch-norm statistics again on the calibration images"
    )
    cp_block_steps: int = setting(
        0, "after pruning, Adam steps for each block towards the dense block's outputs on the calibration "
        "images, without labels (a few hundred; 0: none)", accept=COUNT_OR_ZERO
    )
    cp_block_lrn_rate: float = setting(1e-3, "learning rate of --cp_block_steps", accept=POSITIVE)
    cp_cache_gb: float = setting(4.0, "memory for cached activations, in GB", accept=POSITIVE)

    @property
    def selection(self) -> str:
        """The selection in force: PocketFlow's --nocp_lasso turns the Lasso into weight magnitude."""
        return "magnitude" if self.cp_selection == "lasso" and not self.cp_lasso else self.cp_selection

    @property
    def channel_multiple(self) -> int:
        """The multiple in force: --cp_quadruple makes it one of 4 as well."""
        return math.lcm(self.cp_channel_multiple, 4) if self.cp_quadruple else self.cp_channel_multiple


@dataclass(frozen=True)
class Config:
    """All settings of a run. Field names are distinct over all concerns: each is a flag."""

    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    net: NetConfig = dataclasses.field(default_factory=NetConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    channel_pruning: ChannelPruningConfig = dataclasses.field(default_factory=ChannelPruningConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    ddpg: DdpgConfig = dataclasses.field(default_factory=DdpgConfig)

    @classmethod
    def from_flags(cls, arguments: Sequence[str]) -> "Config":
        """Settings from a command line without its program name, e.g. ["--learner", "channel"].

        Raises UserError for an unknown flag, a value of the wrong kind, or one that is not accepted.
        """
        values = _parse(arguments)
        return cls(
            **{
                name: concern(**{field.name: values[field.name] for field in dataclasses.fields(concern)})
                for name, concern in _concerns().items()
            }
        )

    def as_dict(self) -> dict[str, object]:
        """Flag name -> value, for report.json."""
        concerns = dataclasses.asdict(self).values()
        return {name: value for concern in concerns for name, value in concern.items()}

    @property
    def workdir(self) -> Path:
        """The folder the run writes to: --workdir, or one named after the network and the data set."""
        if self.run.workdir:
            return Path(self.run.workdir)
        net = short_name(self.net.net)
        if self.net.resnet_size:
            net = f"{net}_{self.net.resnet_size}"
        return Path("runs", f"{net}_at_{short_name(self.data.dataset)}")


def short_name(spec: str) -> str:
    """A network's or data set's name without its path: 'nets/mine.py:build' -> 'mine'."""
    return Path(spec.rsplit(":", 1)[0]).stem if ":" in spec else spec


_HELP_HEAD = """\
PocketPrune: a network, a data set and a learner in; a smaller and faster network out.

  python run.py --learner channel --cp_prune_option uniform --cp_uniform_preserve_ratio 0.5
  python run.py --exec_mode layers
  python run.py --learner channel --net my_net.py:build --dataset cifar10 --init_checkpoint trained.pt

A flag is written --name value or --name=value, a switch --name or --noname. Defaults stand in brackets."""


def help_page(width: int | None = None) -> str:
    """The text of --help, wrapped at `width` columns, or the terminal's."""
    width = width or max(60, min(110, shutil.get_terminal_size().columns))
    return "\n\n".join([_HELP_HEAD, *(described(concern, width) for concern in _concerns().values())])


def _concerns() -> dict[str, type[Concern]]:
    return {field.name: field.default_factory for field in dataclasses.fields(Config)}  # type: ignore[misc]


class _ValueParser(flags.ArgumentParser):
    """Turns a flag's text into its kind; absl's own parsers explain themselves in developers' words."""

    _EXPECTED: typing.ClassVar = {bool: "true or false", int: "a whole number", float: "a number"}
    _SWITCH: typing.ClassVar = {"true": True, "1": True, "false": False, "0": False}

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def parse(self, argument: object) -> object:
        if not isinstance(argument, str):
            return argument
        try:
            return self._SWITCH[argument.lower()] if self.kind is bool else self.kind(argument)
        except (KeyError, ValueError):
            raise ValueError(f"expected {self._EXPECTED[self.kind]}") from None


def _parse(arguments: Sequence[str]) -> dict[str, object]:
    registry = flags.FlagValues()
    for concern in _concerns().values():
        kind = kinds(concern)
        for field in dataclasses.fields(concern):
            parser, name = _ValueParser(kind[field.name]), field.name
            switch = kind[name] is bool
            flag = flags.Flag(parser, flags.ArgumentSerializer(), name, field.default, None, boolean=switch)
            flags.DEFINE_flag(flag, registry)
    try:
        left = registry(["run.py", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = nearest(error.flagname, list(registry))
        raise UserError(f"--{error.flagname}: unknown{hint} (--help lists all flags)") from None
    except (flags.Error, ValueError) as error:
        raise UserError(" ".join(str(error).removeprefix("flag ").split())) from None
    if left:
        raise UserError(f"argument {left[0]!r}: expected a flag (a switch takes its value as --switch=true)")
    return {name: registry[name].value for name in registry}
