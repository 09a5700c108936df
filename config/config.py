"""All settings of a run, as one object."""

import dataclasses
import shlex
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.channel_pruning import ChannelPruningConfig
from config.data import DataConfig
from config.discriminating import DiscriminatingConfig
from config.distillation import DistillationConfig
from config.filter_pruning import FilterPruningConfig
from config.flags import parse
from config.net import NetConfig
from config.quantization import NonUniformConfig, QuantizationConfig, UniformConfig
from config.run import RunConfig
from config.search import DdpgConfig, SearchConfig
from config.settings import Concern, argument_of
from config.sparsity import AutoCompressConfig, SparsityConfig, WeightSparseConfig
from config.training import TrainConfig
from pocketprune.common.errors import UserError


@dataclass(frozen=True)
class Config:
    """All settings of a run. As each field is a flag, no name occurs in two concerns."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    channel_pruning: ChannelPruningConfig = field(default_factory=ChannelPruningConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    ddpg: DdpgConfig = field(default_factory=DdpgConfig)
    discriminating: DiscriminatingConfig = field(default_factory=DiscriminatingConfig)
    filter_pruning: FilterPruningConfig = field(default_factory=FilterPruningConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    weight_sparse: WeightSparseConfig = field(default_factory=WeightSparseConfig)
    auto_compress: AutoCompressConfig = field(default_factory=AutoCompressConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    uniform: UniformConfig = field(default_factory=UniformConfig)
    non_uniform: NonUniformConfig = field(default_factory=NonUniformConfig)

    @classmethod
    def from_flags(cls, arguments: Sequence[str]) -> "Config":
        """Return the settings of a command line without its program name, e.g. ["--learner", "channel"].

        Raises:
            UserError: an unknown flag, a value of the wrong kind, or one that is not accepted.
        """
        values = parse(arguments, CONCERNS.values())
        parts: dict[str, typing.Any] = {
            name: concern(**{flag.name: values[flag.name] for flag in dataclasses.fields(concern)})
            for name, concern in CONCERNS.items()
        }
        return cls(**parts)

    def as_dict(self) -> dict[str, object]:
        """Return flag name -> value, for report.json."""
        concerns = dataclasses.asdict(self).values()
        return {name: value for concern in concerns for name, value in concern.items()}

    def command_line(self) -> str:
        """Return the command that starts this run: its flags that are not at their defaults."""
        default = Config().as_dict()
        flags = [f"--{name}={value}" for name, value in self.as_dict().items() if value != default[name]]
        return shlex.join(["python", "run.py", *flags])

    def told(self, error: UserError) -> str:
        """Return an error's line with the flag and its value instead of the engine's argument."""
        flag = FLAG_OF_ARGUMENT.get(error.argument)
        if flag is None:
            return str(error)
        value = self.as_dict()[flag]
        return f"--{flag}: {error.message}" if value in (None, "") else f"--{flag}={value}: {error.message}"

    @property
    def workdir(self) -> Path:
        """The folder to which the run writes: --workdir, or one named after the network and the data set."""
        if self.run.workdir:
            return Path(self.run.workdir)
        net = short_name(self.net.net)
        if self.net.resnet_size:
            net = f"{net}_{self.net.resnet_size}"
        return Path("runs", f"{net}_at_{short_name(self.data.dataset)}")


CONCERNS: dict[str, type[Concern]] = typing.get_type_hints(Config)
"""The parts of a Config: name -> class."""

FLAG_OF_ARGUMENT: dict[str, str] = {
    argument_of(flag): flag.name for concern in CONCERNS.values() for flag in dataclasses.fields(concern)
}
"""Argument of the engine -> the flag that sets it."""


def short_name(spec: str) -> str:
    """Return a network's or data set's name without its path: 'nets/mine.py:build' -> 'mine'."""
    return Path(spec.rsplit(":", 1)[0]).stem if ":" in spec else spec
