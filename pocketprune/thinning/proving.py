"""Which form of a thinned network is right: its own code where that still computes the right thing, else the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.hooks import silent_hooks
from pocketprune.graph.tracing import batch_of, copied
from pocketprune.structure.batches import Call, frozen_at, other_batch
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.comparing import same_computation
from pocketprune.structure.masking import masked_output
from pocketprune.structure.verification import random_numbers, same_output, same_shapes
from pocketprune.thinning.modules import thin_modules
from pocketprune.thinning.recipes import Recipe, thin_tensor
from pocketprune.thinning.rewriting.graphs import removed_by, thin_graph


class UnprovedError(UserError):
    """A thinned network does not compute what it should."""


def proved(structure: Structure, recipe: Recipe, exact: bool) -> tuple[nn.Module, str]:
    """The thinned network in the plainer form that is right, and the form's name; its numbers are random.

    The rewritten graph is right if it computes what the masked dense network does, at several sets of numbers; where
    removal changes statistics there is no such reference. The network's own code is right if it goes through the same
    steps as the graph. Both must also hold at another batch size, where the network takes one.

    Raises:
        UnprovedError: neither form is right.
    """
    graph, module = thin_graph(structure, recipe), thin_modules(structure.traced.net, recipe)
    with silent_hooks(graph, structure.traced.onlookers), silent_hooks(module, structure.traced.onlookers):
        return _plainest(structure, recipe, exact, graph, module)


def unproved(structure: Structure, recipe: Recipe, form: str) -> nn.Module:
    """The thinned network in this form; nothing is compared."""
    return thin_graph(structure, recipe) if form == "graph" else thin_modules(structure.traced.net, recipe)


def _plainest(
    structure: Structure, recipe: Recipe, exact: bool, graph: nn.Module, module: nn.Module
) -> tuple[nn.Module, str]:
    """The plainer of the two forms that is right, and its name."""
    call, is_plain = structure.traced.example, True
    masked: dict[str, Tensor] = {}
    for numbers in random_numbers(structure):
        masked = numbers | _sampled_columns(recipe, numbers)
        with_tensors(graph, recipe, numbers)
        if exact and not same_output(graph, *call, _masked(structure, recipe, masked)(call)):
            raise UnprovedError(
                f"network {type(structure.traced.net).__name__}: the thinned network does not compute "
                f"what the masked one does; leave out groups of it (ignore=[...]): {', '.join(recipe.groups)}"
            )
        is_plain = is_plain and same_computation(graph, with_tensors(module, recipe, numbers), *call)
    right = _masked(structure, recipe, masked) if exact else _own(graph)
    return _at_another_batch(structure, graph, module if is_plain else None, right)


def _masked(structure: Structure, recipe: Recipe, tensors: Mapping[str, Tensor]) -> Callable[[Call], Any]:
    """Inputs -> the output of the dense network with these tensors, its removed channels masked."""
    return lambda call: masked_output(structure, call, removed_by(structure, recipe), tensors)


def _own(net: nn.Module) -> Callable[[Call], Any]:
    """Inputs -> the network's output in evaluation mode."""

    def made(call: Call) -> Any:
        with torch.no_grad(), evaluation_mode(net):
            return net(*copied(call[0]), **copied(call[1]))

    return made


def _at_another_batch(
    structure: Structure, graph: nn.Module, module: nn.Module | None, right: Callable[[Call], Any]
) -> tuple[nn.Module, str]:
    """The plainer of two forms that also holds at another batch size than the traced one, and its name.

    Args:
        module: None where it was not right at the traced one.
        right: inputs -> the output that is right.
    """
    found = other_batch(structure.traced)
    if found is None:
        return (graph, "graph") if module is None else (module, "module")
    call, dense = found
    node = frozen_at(structure.traced, call, dense)

    def holds(net: nn.Module) -> bool:
        return same_shapes(net, *call, dense) if node else same_output(net, *call, right(call))

    if module is not None and holds(module):
        return module, "module"
    if not node and holds(graph):
        return graph, "graph"
    raise UnprovedError(
        f"network {type(structure.traced.net).__name__}: its thinner copy holds at no other batch size than "
        f"{batch_of(structure.traced.example)}, at which it was traced: {node or 'its own code'}"
    )


def _sampled_columns(recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of layers with a sampler, the columns that they do not read at zero."""
    result = {}
    for name, inputs in recipe.samplers.items():
        result[name] = torch.zeros_like(tensors[name])
        index = torch.as_tensor(inputs, device=tensors[name].device)
        result[name].index_copy_(1, index, tensors[name].index_select(1, index))
    return result


def with_tensors(net: nn.Module, recipe: Recipe, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Copy dense-shaped replacements, thinned, into a thinned network."""
    own = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name in own:
                own[name].copy_(thin_tensor(tensor, recipe.kept.get(name, {})))
    return net
