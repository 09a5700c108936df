"""Scopes: NNCF's names of a network's operations, such as `ResNet/Sequential[layer1]/NNCFConv2d[0]/conv2d_0`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import fx, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.nodes import module_path, operator_name
from pocketprune.structure.channel_groups import Structure, layer_name

REGEX, PREFIX = "{re}", "NNCF"


class Scopes:
    """The names of the operations of one network, NNCF's and the layers' own.

    Args:
        structure: the analysed network.

    Attributes:
        names: layer -> NNCF's name of its operation.
    """

    def __init__(self, structure: Structure) -> None:
        net = structure.traced.net
        self.names = {layer_name(c): _operation(net, c.node) for c in structure.contractions}
        scopes = [_operation(net, node).rpartition("/") for node in structure.traced.call_nodes()]
        self._others = [f"{scope}/{name}" for scope, _, call in scopes for name in (call, call.upper())]
        self._others += [_module(net, path) for path, _ in net.named_modules()]

    def layers(self, scopes: Iterable[str]) -> set[str]:
        """Return the layers that some scopes mean."""
        return {layer for layer, name in self.names.items() if any(_means(scope, layer, name) for scope in scopes)}

    def layer(self, scope: str) -> str | None:
        """Return the one layer that a scope names, or None."""
        return next((layer for layer, name in self.names.items() if _means(scope, layer, name)), None)

    def check(self, scopes: Sequence[str], path: str) -> None:
        """Check that each scope means something in the network.

        Raises:
            UserError: one does not; the message holds the nearest name.
        """
        known = [*self.names, *self.names.values(), *self._others]
        for place, scope in enumerate(scopes):
            if not any(_means(scope, "", name) or scope == name for name in known):
                names = [*self.names.values(), *self.names]
                raise UserError(
                    f"'{scope}' names no operation of the network{nearest(scope, names)}", argument=f"{path}[{place}]"
                )


def _means(scope: str, layer: str, name: str) -> bool:
    """Whether a scope means an operation: by a regular expression, by its name with or without the call, by its layer.

    NNCF's prefix of its own modules counts nowhere.
    """
    name, wanted = name.replace(PREFIX, ""), scope.replace(PREFIX, "")
    if REGEX in scope:
        return re.search(wanted.replace(REGEX, ""), name) is not None
    return wanted in (layer, name, name.rpartition("/")[0])


def _operation(net: nn.Module, node: fx.Node) -> str:
    """Return NNCF's name of the first call of an operation."""
    return f"{_module(net, module_path(node))}/{operator_name(node)}_0"


def _module(net: nn.Module, path: str) -> str:
    """Return NNCF's name of a module: the classes on the way to it, each with its attribute."""
    parts, module = [type(net).__name__], net
    for attribute in filter(None, path.split(".")):
        module = getattr(module, attribute, module)
        kind = type(module).__name__
        is_layer = bool(list(module.parameters(recurse=False))) and not list(module.children())
        parts.append(f"{PREFIX if is_layer else ''}{kind}[{attribute}]")
    return "/".join(parts)
