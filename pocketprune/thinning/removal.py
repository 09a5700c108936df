"""Removing channels from a network: the one door to thinning, with its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.common.steps import Step, carry_steps, steps_of
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.comparing import same_computation
from pocketprune.structure.verification import check_groups, masked_output, random_numbers, same_output
from pocketprune.thinning.modules import thin_modules
from pocketprune.thinning.recipes import CHANNELS, Recipe, check_kept, recipe_for, thin_tensor
from pocketprune.thinning.rewriting.graphs import removed_by, thin_graph


def remove_channels(
    net: nn.Module,
    example_inputs: ExampleInputs,
    kept: Mapping[str, Sequence[int] | Tensor],
    *,
    attention: str = "heads",
    allow_inexact: bool = False,
    check: bool = True,
) -> nn.Module:
    """A thinner copy of a network: of each named channel group only the kept channels remain.

    The copy's output equals the network's with the removed channels' columns in every consumer set to zero.

    Args:
        kept: group name (see `find_channel_groups`) -> indices of the channels that stay.
        attention, allow_inexact: as in `find_channel_groups`.
        check: first permute every group's channels and require an unchanged output.

    Raises:
        UserError: an unknown group, one that must stay, bad indices, or a network that cannot be traced.
    """
    structure = analyse(net, example_inputs, attention=attention, allow_inexact=allow_inexact)
    if check:
        check_groups(structure, structure.traced.example)
    chosen = check_kept(structure.groups, kept)
    exact = all(g.exact for g in structure.groups if g.name in chosen and len(chosen[g.name]) < g.size)
    return thin(structure, recipe_for(structure, chosen), exact=exact)


def thin(
    structure: Structure, recipe: Recipe, *, exact: bool = True, tensors: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """The network thinned by a recipe; its own code where that still computes the right thing, else the graph.

    Args:
        exact: compare with the masked dense network, which is the definition of right; False where a normalisation
            mixes removed channels, so that only the two forms can be compared.
        tensors: dense-shaped replacements for the network's tensors (refitted weights), by name.
    """
    recipe.example = describe_example(structure.traced.example)
    recipe.dense = {name: list(tensor.shape) for name, tensor in structure.traced.named_tensors().items()}
    net, form = _proved(structure, recipe, exact)
    dense = structure.traced.net
    own = {name: tensor.detach() for name, tensor in (*dense.named_parameters(), *dense.named_buffers())}
    recipe.form = form
    thinned = _with_tensors(net, recipe, own | dict(tensors or {}))
    return carry_steps(thinned, (*steps_of(dense), Step(CHANNELS, recipe)))


def _proved(structure: Structure, recipe: Recipe, exact: bool) -> tuple[nn.Module, str]:
    """The thinned network in the plainer form that is right, and the form's name; its numbers are random.

    The rewritten graph is right if it computes what the masked dense network does, at several sets of numbers; where
    removal changes statistics there is no such reference. The network's own code is right if it goes through the same
    steps as the graph.
    """
    args, kwargs = structure.traced.example
    graph, module, is_plain = thin_graph(structure, recipe), thin_modules(structure.traced.net, recipe), True
    for numbers in random_numbers(structure):
        _with_tensors(graph, recipe, numbers)
        if exact:
            masked = numbers | _sampled_columns(recipe, numbers)
            expected = masked_output(structure, (args, kwargs), removed_by(structure, recipe), masked)
            if not same_output(graph, args, kwargs, expected):
                raise UserError(
                    f"network {type(structure.traced.net).__name__}: the thinned network does not compute "
                    "what the masked one does; leave out the groups of unusual layers"
                )
        is_plain = is_plain and same_computation(graph, _with_tensors(module, recipe, numbers), args, kwargs)
    return (module, "module") if is_plain else (graph, "graph")


def _sampled_columns(recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of layers with a sampler, the columns that they do not read at zero."""
    result = {}
    for name, inputs in recipe.samplers.items():
        result[name] = torch.zeros_like(tensors[name])
        index = torch.as_tensor(inputs, device=tensors[name].device)
        result[name].index_copy_(1, index, tensors[name].index_select(1, index))
    return result


def _with_tensors(net: nn.Module, recipe: Recipe, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Copy dense-shaped replacements, thinned, into a thinned network."""
    own = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name in own:
                own[name].copy_(thin_tensor(tensor, recipe.kept.get(name, {})))
    return net


def describe_example(example: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Shapes and dtypes in place of the example tensors, so that an artifact can trace again."""
    return pytree.tree_map(
        lambda v: (
            {"shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")} if isinstance(v, Tensor) else v
        ),
        example,
    )
