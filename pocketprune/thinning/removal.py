"""Removing channels from a network: the one door to thinning, with its checks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.common.steps import Step, carry_steps, steps_of
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.holding import groups_that_hold, is_exact
from pocketprune.thinning.proving import proved, unproved, with_tensors
from pocketprune.thinning.recipes import CHANNELS, Recipe, check_kept, recipe_for


def remove_channels(
    net: nn.Module,
    example_inputs: ExampleInputs,
    kept: Mapping[str, Sequence[int] | Tensor],
    *,
    attention: str = "heads",
    allow_inexact: bool = False,
    ignore: Sequence[str] = (),
    check: bool = True,
) -> nn.Module:
    """A thinner copy of a network: of each named channel group only the kept channels remain.

    The copy's output equals the network's with the removed channels' columns in every consumer set to zero. Groups
    whose removal does not give that, for which the analysis must have erred, stay whole; a warning names them.

    Args:
        kept: group name (see `find_channel_groups`) -> indices of the channels that stay.
        attention, allow_inexact, ignore: as in `find_channel_groups`.
        check: first permute every group's channels and require an unchanged output.

    Raises:
        UserError: an unknown group, one that must stay, bad indices, or a network that cannot be traced.
    """
    structure = analyse(net, example_inputs, attention=attention, allow_inexact=allow_inexact, ignore=ignore)
    if check:
        check_groups(structure, structure.traced.example)
    chosen = check_kept(structure.groups, kept)
    try:
        return thin(structure, recipe_for(structure, chosen), exact=is_exact(structure, chosen))
    except UserError as error:
        held = groups_that_hold(structure, chosen)
        if not any(len(held[g.name]) < g.size for g in structure.groups if g.name in held):
            raise
        left = ", ".join(name for name in chosen if name not in held)
        warnings.warn(f"remove_channels: left whole: {left} ({error})", stacklevel=2)
        return thin(structure, recipe_for(structure, held), exact=is_exact(structure, held))


def thin(
    structure: Structure,
    recipe: Recipe,
    *,
    exact: bool = True,
    tensors: Mapping[str, Tensor] | None = None,
    form: str = "",
) -> nn.Module:
    """The network thinned by a recipe; its own code where that still computes the right thing, else the graph.

    Args:
        exact: compare with the masked dense network, which is the definition of right; False where a normalisation
            mixes removed channels, so that only the two forms can be compared.
        tensors: dense-shaped replacements for the network's tensors (refitted weights), by name.
        form: the form that was right at another thinning of this structure; it is not proved again. "": prove it.
    """
    recipe.example = describe_example(structure.traced.example)
    recipe.dense = {name: list(tensor.shape) for name, tensor in structure.traced.named_tensors().items()}
    net, form = (unproved(structure, recipe, form), form) if form else proved(structure, recipe, exact)
    dense = structure.traced.net
    own = {name: tensor.detach() for name, tensor in (*dense.named_parameters(), *dense.named_buffers())}
    recipe.form = form
    thinned = with_tensors(net, recipe, own | dict(tensors or {}))
    return carry_steps(thinned, (*steps_of(dense), Step(CHANNELS, recipe)))


def describe_example(example: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Shapes and dtypes in place of the example tensors, so that an artifact can trace again."""
    return pytree.tree_map(
        lambda v: (
            {"shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")} if isinstance(v, Tensor) else v
        ),
        example,
    )
