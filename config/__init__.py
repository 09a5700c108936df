"""All a run can be told: frozen dataclasses, one per concern; the command line's flags are their fields.

A new flag is a new field: its default, its teaching text and what it accepts stand in one place.
`Config.from_flags` reads a command line; `help_page` shows every flag, grouped by concern.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.flags import parse
from config.pruning import ChannelPruningConfig
from config.run import DataConfig, NetConfig, RunConfig
from config.search import DdpgConfig, SearchConfig
from config.settings import Concern, described
from config.training import DistillationConfig, TrainConfig

HELP_FLAGS = frozenset({"--help", "-help", "-h", "--helpfull", "--helpshort"})


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
        values = parse(arguments, _concerns().values())
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
