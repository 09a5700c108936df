"""Find, thin, prune, save, load and export over the models of an installed torchvision or timm, one line each.

  python scripts/sweep_models.py timm                 # the smallest model of each family
  python scripts/sweep_models.py torchvision --all    # every model
  python scripts/sweep_models.py timm --only 'resnet*' --without prune

The weights are random ones; batch norms get random statistics, so that nothing cancels. It ends with counts.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
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
        groups: channel groups found, and how many of them are prunable exactly.
        steps: step -> "ok", or why it failed.
        macs: share of the MACs left.
    """

    groups: int = 0
    exact: int = 0
    macs: float = 1.0
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """What the model counts as."""
        failed = [name for name, said in self.steps.items() if said != "ok"]
        if failed:
            return f"{failed[0]} failed"
        return "exact" if self.exact else "nothing to remove exactly"


class _TooLongError(Exception):
    """A model took more than its time."""


def main(arguments: Sequence[str]) -> int:
    """Sweep over the models asked for. Return 0 where all are exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=tuple(LIBRARIES), help="it has to be installed")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of models, * for anything")
    parser.add_argument("--all", action="store_true", help="every model, not only the smallest of each family")
    parser.add_argument("--without", nargs="*", default=[], choices=("prune", "export"), help="steps left out")
    parser.add_argument("--size", type=int, default=0, help="side of the images; 0: what the model is made for")
    parser.add_argument("--seconds", type=int, default=180, help="for one model at most (180)")
    parser.add_argument("--most", type=int, default=0, help="models at most; 0: all")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    try:
        models = LIBRARIES[given.library](given)
    except ImportError as error:
        print(f"error: {given.library}: cannot be imported ({one_line(error)})", file=sys.stderr)
        return 2
    verdicts: Counter[str] = Counter()
    for number, (name, build, size) in enumerate(models):
        if given.most and number == given.most:
            break
        began, outcome = time.perf_counter(), swept(build, given.size or size, given.seconds, given.without)
        verdicts[outcome.verdict] += 1
        told = "; ".join(f"{step}: {said}" for step, said in outcome.steps.items() if said != "ok") or "ok"
        print(f"{name:32} {outcome.exact:4}/{outcome.groups:<4} groups exact, {outcome.macs:6.1%} of the MACs, "
              f"{time.perf_counter() - began:5.1f} s  {told}", flush=True)  # fmt: skip
    print(f"\n{given.library}: {sum(verdicts.values())} models: "
          + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))  # fmt: skip
    return int(set(verdicts) != {"exact"})


def swept(build: Callable[[], nn.Module], size: int, seconds: int, without: Sequence[str] = ()) -> Outcome:
    """Return what every step gave for one model. A step that fails ends it."""
    outcome, known = Outcome(), dict[str, Any]()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, step in _steps(build, size, Path(folder), outcome, known).items():
            if name in without:
                continue
            try:
                with _at_most(seconds):
                    step()
                outcome.steps[name] = "ok"
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a library's own code may raise anything
                outcome.steps[name] = str(error) if isinstance(error, UserError) else one_line(error)
                break
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
        options = pocketprune.PruningOptions(points_per_layer=4, layers="all")
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
    """Raise an error inside after so many seconds, where the system can."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError(f"more than {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Models = Iterator[tuple[str, Callable[[], nn.Module], int]]


def _timm(given: argparse.Namespace) -> Models:
    """Yield name, builder and image size of timm's models; of each family the smallest one."""
    timm = import_module("timm")
    families: dict[str, list[str]] = {}
    for name in timm.list_models(given.only):
        entry = timm.models._registry._model_entrypoints[name]
        families.setdefault(entry.__module__.rpartition(".")[2], []).append(name)
    for _, names in sorted(families.items()):
        for name in names if given.all else _smallest(names, lambda name: timm.create_model(name, pretrained=False)):
            size = timm.get_pretrained_cfg(name, allow_unregistered=True)
            yield name, partial(timm.create_model, name, pretrained=False), _side(size)


def _side(config: Any) -> int:
    return int(config.input_size[-1]) if config is not None and config.input_size else 224


def _smallest(names: Sequence[str], build: Callable[[str], nn.Module]) -> list[str]:
    """Return the name of the model with the fewest parameters, without any memory for their values."""
    sizes = {}
    for name in names:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in build(name).parameters())
        except Exception:  # some models compute with their values while they are built
            continue
    return [min(sizes, key=lambda name: sizes[name])] if sizes else list(names[:1])


def _torchvision(given: argparse.Namespace) -> Models:
    """Yield name, builder and image size of torchvision's classifiers; of each family the smallest one."""
    models = import_module("torchvision.models")
    families: dict[str, list[str]] = {}
    for name in models.list_models(module=models):
        if fnmatch.fnmatch(name, given.only):
            families.setdefault(models.get_model_builder(name).__module__.rpartition(".")[2], []).append(name)
    for _, names in sorted(families.items()):
        for name in names if given.all else _smallest(names, lambda name: models.get_model(name, weights=None)):
            yield name, partial(models.get_model, name, weights=None), 299 if "inception" in name else 224


LIBRARIES: dict[str, Callable[[argparse.Namespace], Models]] = {"timm": _timm, "torchvision": _torchvision}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
    sys.exit(main(sys.argv[1:]))
