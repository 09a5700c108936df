"""The command line of the installed library."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pocketprune.channel_pruning.measuring import PruningWarning
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.cli import commands
from pocketprune.common.errors import UserError
from pocketprune.common.options import expectation_of
from pocketprune.common.registry import watching_own_code
from pocketprune.search import SEARCHES
from pocketprune.search.budget import BUDGET_UNITS

INTRODUCTION = """\
Make a network smaller and faster by removing channels; it stays usable before any training.

A network and its data are named as FILE.py:CALLABLE. In net.py,

    def build():                        # returns the torch.nn.Module, with or without its weights
        return MyNetwork()

    def batches():                      # returns batches of inputs: tensors, tuples of arguments, dicts of
        return DataLoader(...)          # keyword arguments, or (images, integer labels) of a classifier

and on the command line

    pocketprune layers --net net.py:build --data net.py:batches
    pocketprune prune  --net net.py:build --data net.py:batches --weights trained.pt --ratio 0.5 --out pruned
    pocketprune search --net net.py:build --data net.py:batches --weights trained.pt --budget latency --share 0.7
    pocketprune export --net net.py:build --data net.py:batches --weights pruned/pruned_model.pt --to onnx --out pruned
    pocketprune compare pruned searched

What is no classifier has a task, which says how good a network is:

    def task():
        return pocketprune.Task(metric=mean_iou, name="mean IoU")     # mean_iou(net) -> a number, higher is better

"pocketprune COMMAND --help" lists the flags of a command."""
FLAG_OF = {"batches": "--data", "calibration": "--data", "example_inputs": "--data", "held_out": "--data",
           "target": "--ratio", "target.share": "--macs", "budget.share": "--share", "net": "--net",
           "task.metric": "--task: its metric", "task.divergence": "--task: its divergence",
           "runs": "runs"}  # fmt: skip
"""Argument of the engine -> the flag that sets it, where they differ."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (pocketprune {self.prog.partition(' ')[2]} --help)".replace("  ", " "))


def main(arguments: Sequence[str]) -> int:
    """Run one command, given without the program's name. Return its exit status; 2 for a person's mistake."""
    try:
        given = parser().parse_args(arguments)
        given.line = shlex.join(["pocketprune", *arguments])
        with watching_own_code(), warnings.catch_warnings():
            warnings.simplefilter("ignore", PruningWarning)  # the result lists them
            given.run(given)
    except UserError as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def entry() -> int:
    """Run the installed command."""
    return main(sys.argv[1:])


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = _Parser(prog="pocketprune", description=INTRODUCTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    one = _command(parts, "layers", commands.show_layers, "show what can be pruned, and why the rest cannot")
    one.add_argument("--template", type=Path, metavar="FILE", help="write a list of preserve ratios to edit")
    one = _command(parts, "prune", commands.prune, "prune a network, refitted to what it computes on the data")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--ratio", type=float, default=0.5, help="share of its input channels that each layer keeps (0.5)")
    how.add_argument("--ratios", type=Path, metavar="FILE", help="a list with one such share for each layer")
    how.add_argument("--macs", type=float, help="share of the network's MACs that one ratio for all layers keeps")
    _add_out(one)
    one = _command(parts, "search", commands.search, "search for the best ratios under a budget, prune to them")
    one.add_argument("--budget", choices=tuple(BUDGET_UNITS), default="macs", help="what is bounded (macs)")
    one.add_argument("--share", type=float, default=0.5, help="share of the dense network's cost to keep (0.5)")
    one.add_argument("--method", choices=tuple(SEARCHES), default="dp", help="how it searches (dp)")
    one.add_argument("--rollouts", type=int, default=60, help="networks that it may score (60)")
    _add_out(one)
    one = _command(parts, "export", commands.export, "write a network for ONNX Runtime, OpenVINO, torch.export")
    one.add_argument("--to", nargs="+", choices=tuple(commands.FORMATS), default=list(commands.FORMATS), help="(all)")
    _add_out(one)
    one = parts.add_parser("compare", help="put several runs on one page")
    one.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    one.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (compare.html)")
    one.set_defaults(run=commands.compare_runs)
    return whole


def _command(parts: Any, name: str, run: Any, teach: str) -> argparse.ArgumentParser:
    """Add a command that works on a network and data. Return its parser."""
    one: argparse.ArgumentParser = parts.add_parser(name, help=teach, description=f"{teach[0].upper()}{teach[1:]}.")
    one.add_argument("--net", required=True, metavar="FILE.py:CALLABLE", help="returns the network")
    one.add_argument("--weights", metavar="FILE", help="its state dict, or a saved network, which may be pruned")
    one.add_argument("--data", metavar="FILE.py:CALLABLE", help="returns batches of inputs")
    one.add_argument(
        "--task", metavar="FILE.py:CALLABLE", help="returns a pocketprune.Task; or the word classification"
    )
    one.add_argument("--batches", type=int, default=60, help="batches that are read at most (60)")
    one.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
    known = {field.name: field for field in dataclasses.fields(PruningOptions)}
    for option in commands.OPTIONS:
        _add_option(one, known[option])
    one.set_defaults(run=run)
    return one


def _add_option(one: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    """Add an option of the engine as a flag, with its default, its words and what it accepts."""
    flag, teach = f"--{field.name.replace('_', '-')}", field.metadata["teach"].replace("%", "%%")
    if isinstance(field.default, tuple):
        one.add_argument(flag, nargs="*", default=field.default, help=teach)
        return
    kind: Any = type(field.default)

    def checked(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number") from None
        if expected := expectation_of(field, value):
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}")
        return value

    one.add_argument(flag, type=checked, default=field.default, metavar=kind.__name__.upper(),
                     help=f"{teach} ({field.default})")  # fmt: skip


def _add_out(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=Path, default=Path("pruned"), metavar="FOLDER", help="what is written to (pruned)")


def _told(error: UserError) -> str:
    """Return an error's line with the flag instead of the engine's argument."""
    name = error.argument.partition("[")[0]
    flag = FLAG_OF.get(name)
    return f"{flag}: {error.message}" if flag else str(error)
