"""Refuse what cannot be traced, and say why in words for people."""

from __future__ import annotations

import os
import re
import traceback
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pocketprune.common.errors import UserError


def refuse_untraceable(net: nn.Module) -> None:
    """Refuse what is not a plain floating-point module.

    Raises:
        UserError: the network is no module, or is scripted, exported, quantised or still without weights.
    """
    refuse_others(net)
    if isinstance(net, torch.jit.ScriptModule):
        raise UserError(
            f"{type(net).__name__} is a TorchScript module; the Python module it was made from is accepted",
            argument="net",
        )
    refuse_modeless(net)
    for name, module in net.named_modules():
        kind = type(module)
        if "quantized" in kind.__module__ or any(t.is_quantized for t in module.buffers(recurse=False)):
            raise UserError(
                f"layer '{name}' ({kind.__name__}) is quantised; prune the floating-point network "
                "first and quantise the result",
                argument="net",
            )
        if any(is_lazy(t) for t in module.parameters(recurse=False)):
            raise UserError(
                f"layer '{name}' ({kind.__name__}) has no weights yet; run the network once first", argument="net"
            )


def refuse_undefined(net: nn.Module) -> None:
    """Raise UserError, naming the tensor, for a network whose own numbers are none: NaN, infinite weights."""
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isnan().any()):
            raise UserError(f"its tensor '{name}' holds NaN; a network of finite weights is accepted", argument="net")
    for name, tensor in net.named_parameters():
        if tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isinf().any()):
            raise UserError(
                f"its tensor '{name}' holds infinite values; a network of finite weights is accepted", argument="net"
            )


def refuse_others(net: Any) -> None:
    """Refuse what is no module.

    Raises:
        UserError: it is not a torch.nn.Module.
    """
    if not isinstance(net, nn.Module):
        raise UserError(f"{type(net).__name__} given; a torch.nn.Module is accepted", argument="net")


def refuse_modeless(net: nn.Module) -> None:
    """Refuse what torch.export made: its `eval` is replaced by one that raises.

    Raises:
        UserError: the module cannot be put into evaluation mode.
    """
    if "eval" in vars(net):
        raise UserError(
            f"{type(net).__name__} has no evaluation mode of its own, as what torch.export makes; "
            "the module it was made from is accepted",
            argument="net",
        )


def describe_input(value: Any) -> str:
    """Return the shape and type of an input, for messages."""
    if isinstance(value, Tensor):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def first_line(error: BaseException | None) -> str:
    """Return an error's kind and the first line of its message, without a terminal's colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def why_untraceable(error: Exception | None) -> str:
    """Return the exporter's complaint in one line.

    Where the data decides what is run next, the line says so and names the place in the network's code.
    """
    if error is None or type(error).__name__ != "GuardOnDataDependentSymNode":
        return first_line(error)
    not_theirs = (os.path.dirname(torch.__file__), os.path.dirname(__file__))
    places = [
        f" in {frame.filename}, line {frame.lineno},"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs)
    ]
    return f"control flow{places[-1] if places else ''} depends on the data, which is not supported"
