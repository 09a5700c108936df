"""The layers whose weights can be masked, and which rule takes which of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.sparsity.policy import SparsityPolicy

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def sparse_layers(net: nn.Module) -> dict[str, Tensor]:
    """Return the weights that can be masked, by the name of their layer; of a shared weight, the first layer's name."""
    found: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, KINDS) and not any(module.weight is weight for weight in found.values()):
            found[name] = module.weight
    return found


def layers_by_rule(net: nn.Module, policy: SparsityPolicy) -> list[list[str]]:
    """Return the names of the layers that each rule takes, in the order of the network.

    Raises:
        UserError: names that fit no layer, a rule that is left without one, or a layer that a pattern does not fit.
    """
    layers = sparse_layers(net)
    if not layers:
        raise UserError(f"{type(net).__name__} has no convolution or linear layer", argument="net")
    kinds = {name: type(net.get_submodule(name)).__name__ for name in layers}
    left = [name for name in layers if not _means(policy.ignore, name, kinds[name], "ignore", kinds)]
    taken: list[list[str]] = []
    for rule in policy.rules:
        meant = [name for name in left if _means(rule.layers, name, "", "layers", kinds)]
        if not meant:
            raise UserError(f"{', '.join(rule.layers)}: no layer is left for it", argument="layers")
        for name in meant:
            why = rule.shape.misfit(layers[name].shape)
            if why:
                raise UserError(
                    f"{rule.pattern} given, and layer '{name}' does not fit: {why}; ignore can name it",
                    argument="pattern",
                )
        left = [name for name in left if name not in meant]
        taken.append(meant)
    return taken


def _means(patterns: Sequence[str], name: str, kind: str, argument: str, kinds: dict[str, str]) -> bool:
    """Return whether one of the patterns means a layer, by its name or its module's type; check that each means any."""
    for pattern in patterns:
        known = [*kinds, *kinds.values()] if kind else list(kinds)
        if not any(fnmatchcase(other, pattern) for other in known):
            raise UserError(f"{pattern!r} given{nearest(pattern, dict.fromkeys(known))}", argument=argument)
    return any(fnmatchcase(name, pattern) or pattern == kind for pattern in patterns)
