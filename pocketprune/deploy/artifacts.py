"""Pruned networks as files: tensors and the recipe of their shape, no code.

An artifact is what torch.save makes of a dict of tensors, numbers and strings, so that it loads with
`weights_only=True`. The network's own code is not in it: `load` thins a dense network by the recipe and fills
in the numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.files import read_tensors, refuse_cycles, write_atomically
from pocketprune.common.kinds import refuse_other_kinds
from pocketprune.graph.admission import refuse_others
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.recipes import Recipe, recipe_of
from pocketprune.thinning.removal import rebuild, refuse_pruned
from pocketprune.thinning.stored_recipes import check_dense, check_recipe, differences, parse_recipe

FORMAT, VERSION = "pocketprune", 1
PLAIN = (bool, int, float, str, type(None))
LARGEST = 2**28  # numbers in an example input


def save(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Write a network, pruned by this library or not at all, to one file, entirely or not at all.

    The file holds the recipe of the network's shape, its tensors, which parameters are frozen and which
    modules are in evaluation mode. The network may have been trained, moved or cast since it was pruned.

    Raises:
        UserError: the file cannot be written, or the network holds state that is no tensor.
    """
    refuse_others(net)
    net = _unwrapped(net)
    recipe = recipe_of(net)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "recipe": None if recipe is None else dataclasses.asdict(recipe),
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
    """The network that `save` wrote, on the device of `dense_net`.

    Args:
        dense_net: a network of the architecture that was pruned, with any weights; it stays as it is.

    Raises:
        UserError: the file is no artifact, damaged, truncated, from a newer version, holds code, or
            contradicts itself; or `dense_net` is of another architecture, or pruned already.
    """
    if not isinstance(dense_net, nn.Module):
        raise UserError(f"dense_net: {type(dense_net).__name__} given; a torch.nn.Module is accepted")
    dense_net = _unwrapped(dense_net)
    refuse_pruned(dense_net)
    content = _checked(read_tensors(path), os.fspath(path))
    recipe = parse_recipe(content["recipe"], f"{path}")
    net = copy.deepcopy(dense_net) if recipe is None else _thinned(dense_net, recipe, f"{path}")
    _fill(net, content["tensors"], f"{path}")
    frozen, evaluating = set(content["frozen"]), set(content["evaluating"])
    for name, parameter in net.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(name not in frozen)
    for name, module in net.named_modules():
        module.training = name not in evaluating
    return net


def _unwrapped(net: nn.Module) -> nn.Module:
    """The network inside torch.compile's or data parallelism's wrapper."""
    while True:
        inner = net._modules.get("_orig_mod")
        if isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = net.module
        if inner is None:
            return net
        net = inner


def _stored(net: nn.Module) -> dict[str, Any]:
    """The state dict on the CPU, every tensor in memory of its own; tied tensors share one."""
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
    """A file's content, known to be an artifact of a version that this library reads."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{source}: no PocketPrune artifact; a file written by pocketprune.save is accepted")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{source}: written by a newer PocketPrune (artifact version {version}; this one "
            f"reads up to {VERSION}); upgrade pocketprune"
        )
    kinds = {"tensors": dict, "frozen": list, "evaluating": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if version != VERSION or wrong or "recipe" not in content:
        raise UserError(f"{source}: tampered with: {', '.join(wrong) or 'recipe or version'} malformed")
    return content


def _thinned(dense_net: nn.Module, recipe: Recipe, source: str) -> nn.Module:
    """A copy of the dense network in the recipe's shape."""
    check_dense(dense_net, recipe, source)
    check_recipe(recipe, source)
    device = device_of(dense_net)

    def structure() -> Any:
        return analyse(
            dense_net, _example(recipe.example, device), attention=recipe.attention, allow_inexact=recipe.allow_inexact
        )

    try:
        return rebuild(structure, dense_net, recipe)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # a recipe that fits no network can fail anywhere in its application
        raise UserError(
            f"{source}: its recipe cannot be applied to dense_net ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"[:400]
        ) from error


def _example(described: Any, device: torch.device) -> Any:
    """Example inputs of the shapes and dtypes recorded."""

    def is_tensor(value: Any) -> bool:
        return isinstance(value, dict) and set(value) == {"shape", "dtype"}

    def make(value: Any) -> Any:
        if not is_tensor(value):
            return value
        if math.prod(value["shape"]) > LARGEST:
            raise UserError(f"tampered with: example inputs of {value['shape']} are too large")
        return torch.zeros(value["shape"], dtype=getattr(torch, value["dtype"]), device=device)

    args, kwargs = pytree.tree_map(make, described, is_leaf=is_tensor)
    return tuple(args), kwargs


def _fill(net: nn.Module, tensors: Mapping[str, Any], source: str) -> None:
    """Copy stored tensors, all of them, into the network, which takes over their dtypes."""
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
    net.load_state_dict(dict(tensors))
