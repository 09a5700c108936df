"""Find, thin, prune, save, load and export over the models of an installed torchvision or timm, one line each.

  python scripts/sweep_models.py torchvision                        # the smallest model of each family
  python scripts/sweep_models.py timm --results timm.jsonl          # goes on where it was stopped
  python scripts/sweep_models.py timm --only 'resnet*' --all --without prune

The weights are random ones; batch norms get random statistics, so that nothing cancels. It ends with counts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from model_libraries import LIBRARIES, Library, library, smallest
from torch import Tensor, nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line
from pocketprune.structure.verification import check_groups

RATIO = 0.5
TOLERANCE = 1e-4  # of the largest output


@dataclass
class Outcome:
    """What one model gave.

    Attributes:
        family: the module of the library that has the model.
        groups: channel groups found, and how many of them are prunable exactly.
        steps: step -> "ok", or why it failed.
        macs: share of the MACs left.
    """

    family: str
    name: str
    groups: int = 0
    exact: int = 0
    macs: float = 1.0
    seconds: float = 0.0
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """What the model counts as."""
        failed = [name for name, said in self.steps.items() if said != "ok"]
        if failed:
            return f"{failed[0]} failed"
        return "exact" if self.exact else "nothing to remove exactly"

    def line(self) -> str:
        """What is printed of the model."""
        told = "; ".join(f"{step}: {said}" for step, said in self.steps.items() if said != "ok") or "ok"
        return (
            f"{self.name:32} {self.exact:4}/{self.groups:<4} groups exact, {self.macs:6.1%} of the MACs, "
            f"{self.seconds:5.1f} s  {told}"
        )


class _TooLongError(BaseException):  # what catches every Exception does not catch it
    """A model took more than its time."""


def main(arguments: Sequence[str]) -> int:
    """Sweep over the models asked for. Return 0 where all are exact."""
    given = _arguments(arguments)
    warnings.simplefilter("ignore")
    try:
        models = library(given.library)
    except (ImportError, RuntimeError) as error:  # a torchvision of another PyTorch raises a RuntimeError
        print(f"error: {given.library}: cannot be imported ({one_line(error)})", file=sys.stderr)
        return 2
    outcomes = _read(given.results)
    for number, (family, name) in enumerate(_left(models, given, outcomes)):
        if given.most and number == given.most:
            break
        outcome = swept(Outcome(family, name), models, given.size or models.side(name), given.seconds, given.without)
        outcomes.append(outcome)
        print(outcome.line(), flush=True)
        if given.results:
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    print(f"\n{given.library}: {len(outcomes)} models: {counts}")
    return int(set(verdicts) != {"exact"})


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=tuple(LIBRARIES), help="it has to be installed")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of models, * for anything")
    parser.add_argument("--all", action="store_true", help="every model, not only the smallest of each family")
    parser.add_argument("--without", nargs="*", default=[], choices=("prune", "export"), help="steps left out")
    parser.add_argument("--size", type=int, default=0, help="side of the images; 0: what the model is made for")
    parser.add_argument("--seconds", type=int, default=180, help="processor seconds for one model at most (180)")
    parser.add_argument("--most", type=int, default=0, help="models at most in this call; 0: all")
    parser.add_argument(
        "--results", type=Path, help="file that a line is added to for each model; those in it are done"
    )
    return parser.parse_args(arguments)


def _read(results: Path | None) -> list[Outcome]:
    """Return what earlier calls found."""
    if results is None or not results.exists():
        return []
    return [Outcome(**json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines()]


def _left(models: Library, given: argparse.Namespace, done: Sequence[Outcome]) -> Iterator[tuple[str, str]]:
    """Yield the family and the name of each model to be swept."""
    families, names = {outcome.family for outcome in done}, {outcome.name for outcome in done}
    for family, members in models.families(given.only).items():
        if given.all:
            yield from ((family, name) for name in members if name not in names)
        elif family not in families:
            yield family, smallest(members, models.build)


def swept(outcome: Outcome, models: Library, size: int, seconds: int, without: Sequence[str] = ()) -> Outcome:
    """Return what every step gave for one model. A step that fails ends it."""
    known: dict[str, Any] = {}
    torch.manual_seed(0)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder, _at_most(seconds):
        for name, step in _steps(lambda: models.build(outcome.name), size, Path(folder), outcome, known).items():
            if name in without:
                continue
            try:
                step()
                outcome.steps[name] = "ok"
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a library's own code may raise anything
                outcome.steps[name] = str(error) if isinstance(error, UserError) else one_line(error)
                break
    outcome.seconds = time.process_time() - began
    return outcome


def _steps(
    build: Callable[[], nn.Module], size: int, folder: Path, outcome: Outcome, known: dict[str, Any]
) -> dict[str, Callable[[], None]]:
    """Return the steps, by name and in order. What one finds is in `known` for the next ones."""

    def find() -> None:
        known["net"] = net = _lively(build().eval())
        known["images"] = torch.randn(4, 3, size, size)
        structure = pocketprune.analyse(net, known["images"][:2])
        check_groups(structure, structure.traced.example)
        known["structure"] = structure
        outcome.groups = len(structure.groups)
        known["chosen"] = [group for group in structure.groups if group.prunable and group.exact and group.size > 1]
        outcome.exact = len(known["chosen"])

    def thin() -> None:
        kept = {group.name: list(range(0, group.size, 2)) for group in known["chosen"]}
        if kept:
            known["pruned"] = pocketprune.remove_channels(known["net"], known["images"][:2], kept).eval()
            _outputs(known["pruned"], known["images"])
            costs = [pocketprune.count_macs(known[name], known["images"][:2]) for name in ("pruned", "net")]
            outcome.macs = costs[0] / costs[1]

    def prune() -> None:
        batches = list(known["images"].split(2))
        options = pocketprune.PruningOptions(points_per_layer=4, layers="all", selection="magnitude")
        result = pocketprune.prune_channels(known["structure"], batches, RATIO, options=options)
        known["pruned"], outcome.macs = result.net.eval(), result.macs / result.dense_macs

    def save_and_load() -> None:
        pocketprune.save(folder / "net.pt", known.setdefault("pruned", known["net"]))
        loaded = pocketprune.load(folder / "net.pt", known["net"])
        _compare(loaded, known["pruned"], known["images"])

    def write() -> None:
        pocketprune.export_pt2(folder / "net.pt2", known["pruned"], known["images"][:2], repeats=1)

    return {"find": find, "thin": thin, "prune": prune, "save and load": save_and_load, "export": write}


def _lively(net: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that differ from channel to channel."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


@torch.no_grad()
def _outputs(net: nn.Module, images: Tensor) -> list[Tensor]:
    found = torch.utils._pytree.tree_leaves(net(images.clone()))
    return [tensor for tensor in found if isinstance(tensor, Tensor) and tensor.is_floating_point()]


def _compare(one: nn.Module, other: nn.Module, images: Tensor) -> None:
    """Raise UserError where two networks' outputs differ."""
    for a, b in zip(_outputs(one.eval(), images), _outputs(other, images), strict=True):
        off = float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        if not off <= TOLERANCE:
            raise UserError(f"outputs differ by {off:.1e} of the largest")


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raise an error inside after so many processor seconds, where the system can."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError(f"more than {seconds} processor seconds")

    if not hasattr(signal, "SIGPROF"):
        yield
        return
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
    sys.exit(main(sys.argv[1:]))
