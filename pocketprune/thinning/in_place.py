"""A network becomes a thinner one in place, and its optimizer follows."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.thinning.recipes import Recipe, recipe_of, thin_tensor


def become(net: nn.Module, other: nn.Module) -> None:
    """Let a network be another one in place; it stays in the mode it is in.

    A network whose own code cannot compute with fewer channels becomes the traced graph.
    """
    mode = net.training
    if type(other) is not type(net):
        net.__class__ = type(other)
    vars(net).clear()
    vars(net).update(vars(other))
    net.train(mode)


def become_thinner(net: nn.Module, thinner: nn.Module, optimizer: Optimizer | None = None) -> None:
    """Let a network be its thinned copy in place, and an optimizer of it go on with what it remembers of what is left.

    Args:
        net: the network.
        thinner: what `remove_channels` returned for it.
        optimizer: of the network's parameters.
    """
    before = {parameter: name for name, parameter in net.named_parameters()}
    recipe = recipe_of(thinner) or Recipe()
    become(net, thinner)
    if optimizer is None:
        return
    own = dict(net.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [_moved(optimizer, old, before, own, recipe) for old in group["params"]]


def _moved(
    optimizer: Optimizer,
    old: nn.Parameter,
    names: dict[nn.Parameter, str],
    own: dict[str, nn.Parameter],
    recipe: Recipe,
) -> nn.Parameter:
    """Return the parameter that an old one has become, and move the optimizer's state to it."""
    name = names.get(old)
    if name is None or name not in own:
        return old
    state = optimizer.state.pop(old, None)
    if state is not None:
        kept = recipe.kept.get(name, {})
        optimizer.state[own[name]] = {
            key: thin_tensor(value, kept) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
    return own[name]
