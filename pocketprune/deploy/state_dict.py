"""Weights of a network: read from anybody's state dict or from what this project saved, kept for the next run."""

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_tensors, write_atomically
from pocketprune.common.kinds import refuse_other_kinds
from pocketprune.common.registry import one_line
from pocketprune.deploy.artifacts import is_artifact, restore

# Where training scripts put it, beside their optimiser's state and the like.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # left by wrappers: DataParallel, torch.compile, Lightning
SHOWN = 4  # differing keys named in a message


def load_net(net: nn.Module, path: Path, *, source: str, flag: str = "--net") -> nn.Module:
    """Return the network of a file: `net` itself, filled from a state dict, or what `pocketprune.save` wrote.

    See `load_into` for the rest; a network that was saved may be pruned, and is then a network of its own.
    """
    content = _read(path, source)
    if is_artifact(content):
        return restore(content, net, source)
    _fill(net, content, source, flag)
    return net


def load_into(net: nn.Module, path: Path, *, source: str, flag: str = "--net") -> None:
    """Fill `net` from a state dict file (.pt, .pth, .safetensors), without executing code from it.

    Args:
        source: how the message of an error begins.
        flag: the flag that names the architecture.

    Raises:
        UserError: the file is missing, damaged or no state dict, or of another architecture, with the keys that
            differ, or its tensors are not floating-point where the network's are. The network is then
            unchanged.
    """
    _fill(net, _read(path, source), source, flag)


def _fill(net: nn.Module, content: Any, source: str, flag: str) -> None:
    own = net.state_dict()
    tensors = _unprefixed(_tensors(content, source), own)
    if not tensors:
        raise UserError(f"{source}: holds no state dict (names of parameters with their tensors)")
    refuse_other_kinds(tensors, own, source)
    differences = _differences(own, tensors)
    if differences:
        raise UserError(f"{source}: does not fit {flag}: {differences}")
    own.update(tensors)  # only batch counters may be missing; and some modules ask for the versions that `own` has
    net.load_state_dict(own)


def save(path: Path, net: nn.Module) -> None:
    """Write the state dict of `net`, on the CPU, entirely or not at all."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, buffer)
    write_atomically(path, buffer.getvalue())


def _read(path: Path, source: str) -> Any:
    """Return a file's content, on the CPU."""
    if path.suffix != ".safetensors" or not path.is_file():
        return read_tensors(path, source=source)
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            f'{source}: needs safetensors, not installed here; pip install "pocketprune[safetensors]" installs it'
        )
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the package's own kinds of errors
        raise UserError(f"{source}: damaged, or not a safetensors file ({one_line(error)})") from error


def _tensors(content: Any, source: str) -> dict[str, Tensor]:
    """Return the state dict in a file's content, out of its wrappers; empty if there is none.

    What is no tensor in it (an epoch, a hyperparameter) is left out.
    """
    while isinstance(content, Mapping):
        if is_artifact(content):
            raise UserError(f"{source}: a pruned network; expected is the state dict of a dense one")
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        inner = inner or _only_state_dict(content)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _only_state_dict(content: Mapping[Any, Any]) -> Mapping[str, Tensor] | None:
    """Return the one mapping of tensors among a file's entries, whatever its name; None among tensors, or several."""
    values = list(content.values())
    inner = [v for v in values if isinstance(v, Mapping) and v and all(isinstance(t, Tensor) for t in v.values())]
    return inner[0] if len(inner) == 1 and not any(isinstance(v, Tensor) for v in values) else None


def _unprefixed(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes that all of their names share and the network's own names do not."""
    for _ in PREFIXES:  # they may be nested in any order
        for prefix in PREFIXES:
            own = any(name.startswith(prefix) for name in expected)
            if not own and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return in words which keys and shapes differ; empty where they agree."""
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
