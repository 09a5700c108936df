"""Cutting a pruned network into blocks whose outputs can be compared with those of the dense network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pocketprune.common.inputs import called, split_inputs

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
LEAST = 2  # layers with weights in a block; a single one has been refitted in closed form


@dataclass(frozen=True)
class Segment:
    """A part of the forward pass. It ends with the output of the module `name` ("": the network itself).

    Attributes:
        name: of that module.
        parameters: those of the modules that end in this part.
        alone: whether that module holds all the parameters, so that it can be run by itself on its inputs.
    """

    name: str
    parameters: list[nn.Parameter]
    alone: bool


@dataclass(frozen=True)
class _Call:
    """A call of a module, with the shape of its output if that is one tensor."""

    name: str
    shape: torch.Size | None


def find_segments(net: nn.Module, dense: nn.Module, example: Any) -> list[Segment]:
    """Return the blocks of `net` in forward order. Together they hold every parameter of the called modules."""
    mine, theirs = _calls(net, example), {call.name: call.shape for call in _calls(dense, example)}
    modules = dict(net.named_modules())
    matching = {call.name for call in mine if call.shape is not None and theirs.get(call.name) == call.shape}
    blocks = {name for name in matching if name and _layers(modules[name]) >= LEAST}
    blocks = {name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)}
    segments, names = [], []
    for call in mine:
        names.append(call.name)
        layers = sum(isinstance(modules[name], LAYERS) for name in names)
        ends = call.name in blocks if blocks else call.name in matching and layers >= LEAST
        if call.name and ends:
            segments.append(_segment(call.name, modules, names))
            names = []
    rest = _parameters(modules, [*names, ""])
    known = {id(p) for segment in segments for p in segment.parameters}
    rest = [p for p in rest if id(p) not in known]
    return [s for s in segments if s.parameters] + ([Segment("", rest, True)] if rest else [])


def _segment(end: str, modules: dict[str, nn.Module], names: list[str]) -> Segment:
    parameters = _parameters(modules, names)
    own = {id(p) for p in modules[end].parameters()}
    return Segment(end, parameters, all(id(p) in own for p in parameters))


def _layers(module: nn.Module) -> int:
    return sum(isinstance(part, LAYERS) for part in module.modules())


def _parameters(modules: dict[str, nn.Module], names: list[str]) -> list[nn.Parameter]:
    """Return the parameters that belong directly to these modules, each once."""
    found = {id(p): p for name in names for p in modules[name].parameters(recurse=False)}
    return list(found.values())


@torch.no_grad()
def _calls(net: nn.Module, example: Any) -> list[_Call]:
    """Return the calls of the modules that are called exactly once, in the order in which they end."""
    calls: list[_Call] = []

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: calls.append(
            _Call(name, output.shape if isinstance(output, Tensor) else None)
        )

    with ExitStack() as stack:
        for name, module in net.named_modules():
            stack.callback(module.register_forward_hook(note(name)).remove)
        called(net, example)
    names = [call.name for call in calls]
    return [call for call in calls if names.count(call.name) == 1]


class _ReachedError(Exception):
    """The forward pass has reached the module, and the rest of it is not needed."""


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def output_at(net: nn.Module, name: str, batch: Any) -> Any:
    """Return the output of the module `name` for a batch. What comes after it is not computed."""
    if not name:
        return called(net, batch)
    seen: list[Any] = []

    def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.append(output)
        raise _ReachedError

    _run(net, batch, net.get_submodule(name).register_forward_hook(stop))
    return seen[0]


def inputs_at(net: nn.Module, name: str, batch: Any) -> Arguments:
    """Return the arguments of the module `name` for a batch. Neither it nor what comes after it is computed."""
    if not name:
        return split_inputs(batch)
    seen: list[Arguments] = []

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise _ReachedError

    _run(net, batch, net.get_submodule(name).register_forward_pre_hook(stop, with_kwargs=True))
    return seen[0]


def _run(net: nn.Module, batch: Any, handle: RemovableHandle) -> None:
    try:
        called(net, batch)
    except _ReachedError:
        pass
    finally:
        handle.remove()
