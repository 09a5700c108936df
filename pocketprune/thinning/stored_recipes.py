"""Recipes read from files: nothing in them is believed before it fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.modules import thin_modules
from pocketprune.thinning.recipes import Recipe
from pocketprune.thinning.rewriting.graphs import thin_graph

SHOWN = 3
FORMS, ATTENTION = ("module", "graph"), ("heads", "widths")


LARGEST = 2**28  # numbers in an example input


def parse_recipe(plain: Any, source: str) -> Recipe:
    """Return the recipe that a file's plain values stand for.

    Args:
        source: how the message of an error begins.

    Raises:
        UserError: a field is missing, unknown, or of another kind.
    """
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if not isinstance(plain, dict) or set(plain) != fields:
        raise UserError(f"{source}: tampered with: its recipe lacks fields or has unknown ones")
    faults = [name for name, sound in _soundness(plain).items() if not sound]
    if faults:
        raise UserError(f"{source}: tampered with: malformed {', '.join(faults)} in its recipe")
    return Recipe(**plain)


def _soundness(plain: Mapping[str, Any]) -> dict[str, bool]:
    """Return for each field of a recipe whether it holds the kinds of values it should."""
    kept, biases, example = plain["kept"], plain["new_biases"], plain["example"]
    return {
        "kept": isinstance(kept, dict)
        and all(
            isinstance(name, str)
            and isinstance(axes, dict)
            and all(isinstance(a, int) and a >= 0 and _is_numbers(i) for a, i in axes.items())
            for name, axes in kept.items()
        ),
        "samplers": _is_named_numbers(plain["samplers"]),
        "groups": _is_named_numbers(plain["groups"]),
        "dense": _is_named_numbers(plain["dense"]),
        "new_biases": isinstance(biases, list) and all(isinstance(name, str) for name in biases),
        "form": plain["form"] in FORMS,
        "attention": plain["attention"] in ATTENTION,
        "allow_inexact": isinstance(plain["allow_inexact"], bool),
        "example": isinstance(example, (tuple, list)) and len(example) == 2,
    }


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _is_named_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(n, str) and _is_numbers(v) for n, v in value.items())


def apply_recipe(dense_net: nn.Module, recipe: Recipe, source: str) -> nn.Module:
    """Return a copy of a dense network in the thinned shape; its numbers are any.

    Args:
        source: how the message of an error begins.

    Raises:
        UserError: the recipe is for another architecture, or contradicts itself.
    """
    check_dense(dense_net, recipe, source)
    check_recipe(recipe, source)
    try:
        return _applied(dense_net, recipe)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # a recipe that fits no network can fail anywhere in its application
        raise UserError(
            f"{source}: its recipe cannot be applied to dense_net ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"[:400]
        ) from error


def _applied(dense_net: nn.Module, recipe: Recipe) -> nn.Module:
    if recipe.form == "module":
        return thin_modules(dense_net, recipe)
    example = _example(recipe.example, device_of(dense_net))
    structure = analyse(dense_net, example, attention=recipe.attention, allow_inexact=recipe.allow_inexact)
    return thin_graph(structure, recipe)


def _example(described: Any, device: torch.device) -> Any:
    """Return example inputs of the shapes and dtypes recorded."""

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


def check_dense(dense_net: nn.Module, recipe: Recipe, source: str) -> None:
    """Raise UserError, naming the tensors that differ, unless the recipe is for this architecture."""
    own: dict[str, Tensor] = dict(dense_net.named_parameters(remove_duplicate=False))
    own |= dict(dense_net.named_buffers(remove_duplicate=False))
    unlike = differences(recipe.dense, {name: tensor.shape for name, tensor in own.items()})
    if unlike:
        raise UserError(
            f"{source}: dense_net ({type(dense_net).__name__}) is of another architecture than "
            f"the network that was pruned: {unlike}"
        )


def check_recipe(recipe: Recipe, source: str) -> None:
    """Raise UserError, naming the place, unless all that the recipe keeps exists in the dense network."""
    for name, axes in recipe.kept.items():
        shape = recipe.dense.get(name)
        if shape is None:
            raise UserError(f"{source}: tampered with: its recipe thins '{name}', which dense_net lacks")
        for axis, indices in axes.items():
            if axis >= len(shape) or not _is_subset(indices, shape[axis]):
                raise UserError(
                    f"{source}: tampered with: its recipe keeps indices of '{name}' that shape "
                    f"{tuple(shape)} does not have on axis {axis}"
                )
    for name, inputs in recipe.samplers.items():
        if recipe.kept.get(name, {}).get(1) != inputs:
            raise UserError(f"{source}: tampered with: the sampler of '{name}' does not fit its weight")
    for name in recipe.new_biases:
        if f"{name}.weight" not in recipe.dense or f"{name}.bias" in recipe.dense:
            raise UserError(f"{source}: tampered with: its recipe adds a bias to '{name}', which takes none")


def _is_subset(indices: Sequence[int], size: int) -> bool:
    """Return whether the indices are some of range(size), at least one, rising."""
    return bool(indices) and list(indices) == sorted(set(indices)) and indices[0] >= 0 and indices[-1] < size


def differences(expected: Mapping[str, Iterable[int]], found: Mapping[str, Iterable[int]]) -> str:
    """Return in words which names and shapes differ; empty where they agree."""
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    )
