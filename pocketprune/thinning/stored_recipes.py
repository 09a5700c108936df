"""Recipes read from files: nothing in them is believed before it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.thinning.recipes import Recipe

SHOWN = 3
FORMS, ATTENTION = ("module", "graph"), ("heads", "widths")


def parse_recipe(plain: Any, source: str) -> Recipe | None:
    """A recipe from the plain values of a file; None for the file of a network that was not pruned.

    Raises:
        UserError: a field is missing, unknown, or of another kind.
    """
    if plain is None:
        return None
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if not isinstance(plain, dict) or set(plain) != fields:
        raise UserError(f"{source}: tampered with: its recipe lacks fields or has unknown ones")
    faults = [name for name, sound in _soundness(plain).items() if not sound]
    if faults:
        raise UserError(f"{source}: tampered with: malformed {', '.join(faults)} in its recipe")
    return Recipe(**plain)


def _soundness(plain: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each field of a recipe holds the kinds of values it should."""
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


def check_dense(dense_net: nn.Module, recipe: Recipe, source: str) -> None:
    """Raise UserError, naming the tensors that differ, unless the recipe is for this architecture."""
    own = dict(dense_net.named_parameters(remove_duplicate=False))
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
    """Whether the indices are some of range(size), at least one, rising."""
    return bool(indices) and list(indices) == sorted(set(indices)) and indices[0] >= 0 and indices[-1] < size


def differences(expected: Mapping[str, Iterable[int]], found: Mapping[str, Iterable[int]]) -> str:
    """Names and shapes that differ, in words; empty where they agree."""
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
