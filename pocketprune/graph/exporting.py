"""Call torch.export, in several ways until one succeeds."""

from __future__ import annotations

import dataclasses
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.common.inputs import copied
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.nodes import tensors_in

Call = tuple[tuple[Any, ...], dict[str, Any]]


def attempts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Call, bool, bool]]:
    """Yield the calls to try, best first: (inputs, with a dynamic batch or not, with gradients or not).

    A batch of at least two is better, because torch.export takes an axis of size one for a fixed one. Gradients are
    better, because attention modules without them take a fused path that hides their structure. Some networks run
    only without gradients.
    """

    def twice(t: Any) -> Any:
        return torch.cat([t, t]) if isinstance(t, Tensor) and t.dim() > 0 and t.shape[0] == 1 else t

    tensors = tensors_in((args, kwargs))
    for gradients in (True, False):
        if any(t.dim() > 0 and t.shape[0] == 1 for t in tensors):
            yield pytree.tree_map(twice, (args, kwargs)), True, gradients
        yield (args, kwargs), True, gradients
        yield (args, kwargs), False, gradients


def exported(net: nn.Module, call: Call, dynamic: bool, gradients: bool) -> tuple[torch.export.ExportedProgram, Call]:
    """Export a network in evaluation mode.

    Args:
        net: the network.
        call: its positional and keyword arguments.
        dynamic: let the first axis of every input tensor vary.
        gradients: trace as if the output was to be differentiated.

    Returns:
        The exported program, and `call`.
    """
    args, kwargs = copied(call)
    with evaluation_mode(net), named_keywords(net, kwargs), torch.set_grad_enabled(gradients), silenced("torch"):
        shapes = _dynamic_shapes(net, args, kwargs) if dynamic else None
        return torch.export.export(net, args, kwargs, dynamic_shapes=shapes, strict=False), call


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """Silence warnings, standard error and the loggers named.

    Exporters warn, log and print graphs and guards. A person gets one line instead, from the exception.
    """
    known = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in known]
    for logger in known:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(known, levels, strict=True):
            logger.setLevel(level)


def _dynamic_shapes(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return, by the names of the arguments, that the first axis of every input tensor may vary."""

    def leaf(value: Any) -> Any:
        return {0: torch.export.Dim.AUTO} if isinstance(value, Tensor) and value.dim() > 0 else None

    shapes = pytree.tree_map(leaf, (args, kwargs))
    return dict(inspect.signature(net.forward).bind(*shapes[0], **shapes[1]).arguments)


def register_dataclasses(outputs: Any) -> None:
    """Tell torch how the dataclasses among a network's outputs are taken apart. It does not export them otherwise."""
    for leaf in pytree.tree_leaves(outputs):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(type(leaf))
            register_dataclasses(leaf)


@contextmanager
def named_keywords(net: nn.Module, kwargs: dict[str, Any]) -> Iterator[None]:
    """Replace `forward`, for a while, by one whose signature names every keyword given.

    torch.export allows no dynamic axis in an input that the signature catches by `**kwargs`.
    """
    signature = inspect.signature(net.forward)
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    caught = [name for name in kwargs if name not in {p.name for p in named if p.kind is not p.VAR_POSITIONAL}]
    if not caught or len(named) == len(signature.parameters):
        yield
        return
    own, forward = vars(net).get("forward"), net.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in caught]
    vars(call)["__signature__"] = signature.replace(parameters=[*named, *keywords])
    net.forward = call
    try:
        yield
    finally:
        del net.forward
        if own is not None:
            net.forward = own
