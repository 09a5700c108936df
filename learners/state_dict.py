"""Weights of a full-precision network: read from anybody's state dict, saved for the next run."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.errors import UserError
from pocketprune.files import read_tensors, write_atomically

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put it
PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile
SHOWN = 4  # differing keys named in a message


def load_into(net: nn.Module, path: Path, *, source: str, flag: str = "--net") -> None:
    """Fill `net` from a state dict file (.pt, .pth), without executing code from it.

    Raises UserError, opened by `source`, for a file that is missing, damaged or no state dict, and for one of
    another architecture, naming the keys that differ. The network is then unchanged.
    """
    content = read_tensors(path, source=source)
    tensors = _tensors(content)
    if not tensors:
        raise UserError(f"{source}: holds no state dict (names of parameters with their tensors)")
    differences = _differences(net.state_dict(), tensors)
    if differences:
        raise UserError(f"{source}: does not fit {flag}: {differences}")
    net.load_state_dict(tensors, strict=False)  # only batch counters may be missing


def save(path: Path, net: nn.Module) -> None:
    """Write the state dict of `net`, on the CPU, entirely or not at all."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, buffer)
    write_atomically(path, buffer.getvalue())


def _tensors(content: Any) -> dict[str, Tensor]:
    """The state dict in a file's content, out of its wrapper, without prefixes; empty if there is none."""
    while isinstance(content, Mapping):
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        return {}
    tensors = {str(name): value for name, value in content.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The keys and shapes that differ, in words; empty where they agree."""
    counter = "num_batches_tracked"  # absent from old files, and of no effect on the outputs
    missing = [name for name in expected if name not in found and not name.endswith(counter)]
    extra = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("other shape", shapes))
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
