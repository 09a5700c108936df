"""Keeping masked places at zero whatever a training script does between two steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pocketprune.compression.masks import ChannelMasks


class Watch:
    """Puts zeros back before each forward and each saving, and hides what a loaded state brings into masked places.

    NNCF masks in the forward itself, so its scripts call nothing after `optimizer.step()`, whose momentum may move
    what is masked.

    Args:
        net: the network.
        masks: its masks.
    """

    def __init__(self, net: nn.Module, masks: ChannelMasks) -> None:
        self._net, self._masks, self._handles = net, masks, list[Any]()
        self.begin()

    def begin(self) -> None:
        """Begin to watch."""
        zeros, hidden = _Call(self._masks.enforce), _Call(self._masks.take_over)
        self._handles = [
            self._net.register_forward_pre_hook(zeros),
            self._net.register_state_dict_pre_hook(zeros),
            self._net.register_load_state_dict_post_hook(hidden),
        ]

    def end(self) -> None:
        """Put zeros back once more, and let go of the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._masks.enforce()

    def __enter__(self) -> None:
        """Look away for a while."""
        self.end()

    def __exit__(self, *_: object) -> None:
        self.begin()


class _Call:
    """A hook that calls a function; in a copy or a file of the network it does nothing."""

    def __init__(self, function: Any = None) -> None:
        self._function = function

    def __call__(self, *_: Any) -> None:
        if self._function is not None and not torch.compiler.is_compiling():
            self._function()

    def __reduce__(self) -> tuple[type[_Call], tuple[()]]:
        return _Call, ()
