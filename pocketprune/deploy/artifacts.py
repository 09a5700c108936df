"""Networks as files: their tensors and the steps that gave them their shape, no code.

An artifact is what torch.save makes of a dict of tensors, numbers and strings, so that it loads with
`weights_only=True`. The network's own code is not in it: `load` does the steps again to a dense network and fills in
the numbers.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_tensors, refuse_cycles, write_atomically
from pocketprune.common.kinds import refuse_other_kinds
from pocketprune.common.steps import steps_of, torn_out
from pocketprune.common.wrappers import unwrapped
from pocketprune.deploy.steps import apply_steps, read_steps, write_steps
from pocketprune.graph.admission import refuse_others
from pocketprune.thinning.recipes import CHANNELS
from pocketprune.thinning.stored_recipes import differences

FORMAT, VERSION = "pocketprune", 2
PLAIN = (bool, int, float, str, type(None))


def save(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Write a network, pruned by this library, in parts, or not at all, to one file, entirely or not at all.

    The file holds the network's steps, its tensors, which parameters are frozen and which modules are in evaluation
    mode. The network may have been trained, moved or cast since it was pruned. Of one that torch.compile or data
    parallelism has wrapped, the network inside is written.

    Raises:
        UserError: the file cannot be written, or the network holds state that is no tensor, or layers of a pruned
            network without the rest of it.
    """
    refuse_others(net)
    net = unwrapped(net)
    if torn := torn_out(net):
        raise UserError(
            f"'{torn[0] or type(net).__name__}' was taken out of a pruned network and cannot be loaded without it; "
            "save the whole network, or prune the part by itself",
            argument="net",
        )
    content = {
        "format": FORMAT,
        "version": VERSION,
        "steps": write_steps(steps_of(net)),
        "tensors": _stored(net),
        "frozen": [name for name, p in net.named_parameters(remove_duplicate=False) if not p.requires_grad],
        "evaluating": [name for name, module in net.named_modules() if not module.training],
    }
    refuse_cycles(content)
    _refuse_others(content, "net")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: str | os.PathLike[str], dense_net: nn.Module) -> nn.Module:
    """Return the network that `save` wrote, on the device of `dense_net`.

    Args:
        dense_net: a network of the architecture that was pruned, with any weights; it stays as it is. For a system
            with a pruned network inside, the system with the dense one.

    Raises:
        UserError: the file is no artifact, damaged, truncated, from a newer version, holds code, or
            contradicts itself; or `dense_net` is of another architecture, or pruned already.
    """
    _refuse_pruned(dense_net)
    return restore(read_tensors(path), dense_net, os.fspath(path))


def is_artifact(content: Any) -> bool:
    """Return whether a file's content was written by `save`."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def restore(content: Any, dense_net: nn.Module, source: str) -> nn.Module:
    """Return the network of an artifact's content; see `load`.

    Args:
        source: how the message of an error begins.
    """
    _refuse_pruned(dense_net)
    content = _checked(content, source)
    dense_net, steps = unwrapped(dense_net), read_steps(content["steps"], source)
    net = apply_steps(dense_net, steps, source) if steps else copy.deepcopy(dense_net)
    _fill(net, content["tensors"], source)
    frozen, evaluating = set(content["frozen"]), set(content["evaluating"])
    for name, parameter in net.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(name not in frozen)
    for name, module in net.named_modules():
        module.training = name not in evaluating
    return net


def _refuse_pruned(dense_net: nn.Module) -> None:
    """Raise UserError for what is no module, and for a network that carries steps: an artifact has all of its own."""
    if not isinstance(dense_net, nn.Module):
        raise UserError(f"{type(dense_net).__name__} given; a torch.nn.Module is accepted", argument="dense_net")
    if steps_of(unwrapped(dense_net)):
        raise UserError(
            f"this {type(dense_net).__name__} was pruned already; the dense network is accepted", argument="dense_net"
        )


def _stored(net: nn.Module) -> dict[str, Any]:
    """Return the state dict on the CPU, every tensor in memory of its own; tied tensors share one."""
    copies: dict[Any, Tensor] = {}

    def store(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in copies or tensor.numel() == 0:
            copies[key] = tensor.detach().cpu().clone()
        return copies[key]

    return {name: store(tensor) for name, tensor in net.state_dict().items()}


def _refuse_others(value: Any, where: str) -> None:
    """Raise UserError, naming the place, for anything that would not load without executing code."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_others(item, f"{where}.{key}" if where != "net" else str(key))
    elif type(value) in (list, tuple):
        for item in value:
            _refuse_others(item, where)
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise UserError(f"{where}: a {type(value).__name__} cannot be saved; tensors and plain values can")


def _checked(content: Any, source: str) -> dict[str, Any]:
    """Return a file's content in today's layout, known to be an artifact that this library reads."""
    if not is_artifact(content):
        raise UserError(f"{source}: no PocketPrune artifact; a file written by pocketprune.save is accepted")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{source}: written by a newer PocketPrune (artifact version {version}; this one "
            f"reads up to {VERSION}); upgrade pocketprune"
        )
    shape = "recipe" if version == 1 else "steps"
    kinds = {"tensors": dict, "frozen": list, "evaluating": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if version not in (1, VERSION) or wrong or shape not in content:
        raise UserError(f"{source}: tampered with: {', '.join(wrong) or f'{shape} or version'} malformed")
    steps = _first_layout(content["recipe"]) if version == 1 else content["steps"]
    return {**content, "steps": steps}


def _first_layout(recipe: Any) -> list[dict[str, Any]]:
    """Return the steps of a file of version 1, which held one recipe or None."""
    return [] if recipe is None else [{"kind": CHANNELS, "version": 1, "data": recipe}]


def _fill(net: nn.Module, tensors: Mapping[str, Any], source: str) -> None:
    """Copy all stored tensors into the network, which takes over their dtypes."""
    own = net.state_dict(keep_vars=True)
    refuse_other_kinds(tensors, own, source)
    unlike = differences(
        {n: t.shape for n, t in own.items() if isinstance(t, Tensor)},
        {n: t.shape for n, t in tensors.items() if isinstance(t, Tensor)},
    )
    if unlike:
        raise UserError(f"{source}: its tensors do not fit its recipe and dense_net: {unlike}")
    for name, tensor in own.items():
        if isinstance(tensor, Tensor) and tensor.dtype != tensors[name].dtype:
            tensor.data = tensor.data.to(tensors[name].dtype)
    own.update(tensors)  # and not the stored dict, which lacks the versions that some modules ask for
    net.load_state_dict(own)
