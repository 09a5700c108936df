"""All a run can be told: frozen dataclasses, one per concern; the command line's flags are their fields.

A new flag is a new field: its default, its teaching text and what it accepts stand in one place.
`Config.from_flags` reads a command line; `help_page` shows every flag, grouped by concern.
"""

import dataclasses
import shutil
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from config_pruning import ChannelPruningConfig
from config_search import DdpgConfig, SearchConfig
from config_training import DistillationConfig, TrainConfig
from pocketprune.errors import UserError
from settings import COUNT, COUNT_OR_ZERO, POSITIVE, Concern, Interval, described, kinds, nearest, setting

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
