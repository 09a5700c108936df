"""Forward hooks that only look on: found out in a run on numbers, silent while a network is run for its structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pocketprune.graph.nodes import tensors_in

_TABLES = ("_forward_pre_hooks", "_forward_hooks")

Place = tuple[str, str, int]
"""Path of a module, its table of hooks and the hook's key there; copies of a network have the same."""


@dataclass
class _Watched:
    """A hook that notes whether what it does can matter to the network's output."""

    hook: Callable[..., Any]
    module: nn.Module
    matters: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors = tensors_in((args[1:], kwargs))
        versions, kept = [_version(t) for t in tensors], _tensor_attributes(self.module)
        result = self.hook(*args, **kwargs)
        changed = [_version(t) for t in tensors] != versions
        written = _tensor_attributes(self.module)
        seen = {t.data_ptr() for t in tensors}
        made = any(t.data_ptr() not in seen for name, t in written.items() if kept.get(name) is not t)
        self.matters |= result is not None or changed or made
        return result


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def _tensor_attributes(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}


@contextmanager
def watching_hooks(net: nn.Module) -> Iterator[set[Place]]:
    """While this lasts, hooks are watched; at the end, the set holds the places of those that only look on.

    A hook matters if it returns something, changes what it is given or sets an attribute of its module (as torch's
    older weight norm does). One that was not called is taken to look on.
    """
    lookers: set[Place] = set()
    with _replaced(net, lambda place, hook, module: _Watched(hook, module)) as watched:
        yield lookers
    lookers |= {place for place, hook in watched.items() if not hook.matters}


@contextmanager
def silent_hooks(net: nn.Module, places: Set[Place]) -> Iterator[None]:
    """While this lasts, the hooks at these places are not called."""
    with _replaced(net, lambda place, hook, module: _nothing if place in places else hook):
        yield


def takes_part(module: nn.Module, path: str, onlookers: Set[Place]) -> bool:
    """Whether a module, at a path, has a forward hook that matters to the network's output."""
    return any((path, table, key) not in onlookers for table in _TABLES for key in getattr(module, table))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """A hook that does nothing."""


@contextmanager
def _replaced(net: nn.Module, by: Callable[[Place, Any, nn.Module], Any]) -> Iterator[dict[Place, Any]]:
    """Other hooks in the places of a network's own for a while."""
    own = [
        (table, key, hook, (path, name, key), module)
        for path, module in net.named_modules()
        for name in _TABLES
        for table in [getattr(module, name)]
        for key, hook in table.items()
    ]
    placed = {place: by(place, hook, module) for _, _, hook, place, module in own}
    for table, key, _, place, _ in own:
        table[key] = placed[place]
    try:
        yield placed
    finally:
        for table, key, hook, _, _ in own:
            if key in table:
                table[key] = hook
