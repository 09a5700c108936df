"""Masks on single tensors of a network, element by element: zeros held in place in any training loop."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest


class TensorMasks:
    """Zeros in parameters of one network, none at first.

    They are put back after each step of any optimizer, so that no training loop has to do it. What they hide is stored.

    Args:
        net: the network; its parameters are changed in place.

    Attributes:
        masked: parameter name -> where it is zero, a boolean of its shape.
    """

    def __init__(self, net: nn.Module) -> None:
        self.masked: dict[str, Tensor] = {}
        self._own = dict(net.named_parameters(remove_duplicate=False))
        self._stored: dict[str, Tensor] = {}
        self._hook: Any = None

    @torch.no_grad()
    def set(self, masked: Mapping[str, Tensor]) -> None:
        """Mask these places of these parameters, and no others of the network.

        What is hidden already keeps its stored numbers, and what comes back gets them.

        Raises:
            UserError: there is no such parameter, or a mask has another shape.
        """
        for name, mask in masked.items():
            if name not in self._own:
                raise UserError(f"'{name}' given{nearest(name, self._own)}", argument="masks")
            if mask.shape != self._own[name].shape:
                shapes = f"{tuple(mask.shape)} given for '{name}' of shape {tuple(self._own[name].shape)}"
                raise UserError(shapes, argument="masks")
        self.lift()
        self.masked = {name: mask.to(self._own[name].device, torch.bool) for name, mask in masked.items()}
        self._stored = {name: self._own[name].detach().clone() for name in self.masked}
        self.enforce()
        if self._hook is None:
            self._hook = register_optimizer_step_post_hook(_after_step(weakref.ref(self)))
            weakref.finalize(self, self._hook.remove)

    @torch.no_grad()
    def enforce(self) -> None:
        """Put the zeros back."""
        for name, mask in self.masked.items():
            self._own[name].masked_fill_(mask, 0)

    @torch.no_grad()
    def lift(self) -> None:
        """Give the network the numbers that its masks hide, and mask nothing."""
        for name, mask in self.masked.items():
            self._own[name].copy_(torch.where(mask, self._stored[name], self._own[name]))
        self.masked, self._stored = {}, {}


def _after_step(masks: weakref.ref[TensorMasks]) -> Any:
    """Return the hook of all optimizers; it does nothing once the masks are gone."""

    def enforce(*_: object) -> None:
        found = masks()
        if found is not None:
            found.enforce()

    return enforce
