"""What is refused before or while a network is traced, and in which words."""

from __future__ import annotations

import os
import re
import traceback
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError


def refuse_untraceable(net: nn.Module) -> None:
    """Raise UserError for what is not a plain floating-point module."""
    refuse_others(net)
    if isinstance(net, torch.jit.ScriptModule):
        raise UserError(
            f"net: {type(net).__name__} is a TorchScript module; the Python module it was made from is accepted"
        )
    refuse_modeless(net)
    for name, module in net.named_modules():
        kind = type(module)
        if "quantized" in kind.__module__ or any(t.is_quantized for t in module.buffers(recurse=False)):
            raise UserError(
                f"net: layer '{name}' ({kind.__name__}) is quantised; prune the floating-point network "
                "first and quantise the result"
            )
        if any(isinstance(t, nn.parameter.UninitializedTensorMixin) for t in module.parameters(recurse=False)):
            raise UserError(f"net: layer '{name}' ({kind.__name__}) has no weights yet; run the network once first")


def refuse_others(net: Any) -> None:
    """Raise UserError for what is no module."""
    if not isinstance(net, nn.Module):
        raise UserError(f"net: {type(net).__name__} given; a torch.nn.Module is accepted")


def refuse_modeless(net: nn.Module) -> None:
    """Raise UserError for what torch.export made: its `eval` is replaced by one that raises."""
    if "eval" in vars(net):
        raise UserError(
            f"net: {type(net).__name__} has no evaluation mode of its own, as what torch.export makes; "
            "the module it was made from is accepted"
        )


def describe_input(value: Any) -> str:
    """Shape and type of an input, for messages."""
    if isinstance(value, Tensor):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def first_line(error: BaseException | None) -> str:
    """An error's kind and the first line of its message, without a terminal's colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def why_untraceable(error: Exception | None) -> str:
    """The exporter's complaint in a line: where the data decides what is run next, that and the place."""
    if type(error).__name__ != "GuardOnDataDependentSymNode":
        return first_line(error)
    not_theirs = (os.path.dirname(torch.__file__), os.path.dirname(__file__))
    places = [
        f" in {frame.filename}, line {frame.lineno},"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs)
    ]
    return f"control flow{places[-1] if places else ''} depends on the data, which is not supported"
