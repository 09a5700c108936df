"""The text of --help: every flag with its default, its limits and its meaning, grouped by concern."""

import dataclasses
import shutil
import textwrap

from config.config import CONCERNS
from config.settings import Concern
from pocketprune.common.options import Interval

HELP_FLAGS = frozenset({"--help", "-help", "-h", "--helpfull", "--helpshort"})
HEAD = """\
PocketPrune: a network, a data set and a learner in; a smaller and faster network out.

  python run.py --learner channel --cp_prune_option uniform --cp_uniform_preserve_ratio 0.5
  python run.py --exec_mode layers
  python run.py --learner channel --net my_net.py:build --dataset cifar10 --init_checkpoint trained.pt

A flag is written --name value or --name=value, a switch --name or --noname. Defaults stand in brackets."""


def help_page(width: int | None = None) -> str:
    """Return the text of --help, wrapped at `width` columns or at the terminal's width."""
    width = width or max(60, min(110, shutil.get_terminal_size().columns))
    return "\n\n".join([HEAD, *(_described(concern, width) for concern in CONCERNS.values())])


def _described(concern: type[Concern], width: int) -> str:
    """Return a concern's part of the page."""
    lines = [f"{concern.title}:"]
    for field in dataclasses.fields(concern):
        accept = field.metadata["accept"]
        limits = f"  {accept}" if isinstance(accept, Interval) else ""
        lines.append(f"  --{field.name} ({_shown(field.default)}){limits}")
        teach = textwrap.wrap(field.metadata["teach"], width - 6, break_on_hyphens=False)
        lines += [" " * 6 + line for line in teach]
    return "\n".join(lines)


def _shown(default: object) -> str:
    if default is None:
        return "its own"
    if default == "":
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)
