"""Masks: zeros held in a network's own tensors, in the places of masked channels.

The network stays a plain one: no forward hook, no parametrisation, no new name in its `state_dict`. What the zeros
hide is stored here. Copies, compiled and data-parallel forwards and averages see the zeros as they are. The gradients
are masked by hooks on the parameters, before they are accumulated or averaged over processes.

A soft mask hides the columns that read a channel, so that the channel's filter lives on, and the channel may come
back. A hard mask erases all that belongs to a channel, for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.compression.views import GroupViews, View

KINDS = ("soft", "hard")


class ChannelMasks:
    """The masks of some channel groups of one network, none at first.

    Args:
        net: the network; its tensors are changed in place.
        views: of each group that may be masked.
        kind: "soft" or "hard".
    """

    def __init__(self, net: nn.Module, views: Sequence[GroupViews], kind: str) -> None:
        self._net = net
        own = _floats(net)
        self._views = views
        self._places = {
            v.group.name: [place for place in (v.hidden if kind == "soft" else v.erased) if place.tensor in own]
            for v in views
        }
        self.masked = {v.group.name: torch.zeros(v.group.size, dtype=torch.bool) for v in views}
        self._dropped: dict[str, Tensor] = {}
        self._stored: dict[str, Tensor] = {}
        self._is_lifted = False
        self._hooks = [
            own[name].register_hook(self._hook(name))
            for name in {place.tensor for places in self._places.values() for place in places}
            if own[name].requires_grad
        ]

    def kept(self, group: str) -> list[int]:
        """Return the channels of a group that are not masked."""
        return (~self.masked[group]).nonzero().flatten().tolist()

    @torch.no_grad()
    def set(self, masked: Mapping[str, Tensor]) -> None:
        """Mask these channels of these groups, and no others of them: a boolean (c,) for each group.

        What is hidden already keeps its stored numbers, and what comes back gets them.
        """
        self.masked |= {group: mask.cpu().clone() for group, mask in masked.items()}
        own, dropped = _floats(self._net), self._places_dropped()
        for name in {*self._dropped, *dropped}:
            whole = self._whole(name, own[name])
            if name in dropped:
                self._stored[name] = whole.clone()
                whole = whole.masked_fill(dropped[name].to(whole.device), 0)
            else:
                del self._stored[name]
            own[name].copy_(whole)
        self._dropped = dropped

    @torch.no_grad()
    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the network new numbers, by tensor name, but for masked places; what these hide stays."""
        own = _floats(self._net)
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
        self.enforce()

    @torch.no_grad()
    def take_over(self) -> None:
        """Hide what another state has brought into masked places, such as the weights of an unmasked network."""
        own = _floats(self._net)
        for name in self._dropped:
            new = torch.where(self._dropped_in(name, own[name]), own[name].detach(), 0)
            self._stored[name] = torch.where(new != 0, new, self._stored[name].to(new))
        self.enforce()

    @torch.no_grad()
    def erase(self, net: nn.Module) -> None:
        """Set all that belongs to masked channels to zero in a copy of the network, filters and norms included."""
        own = _floats(net)
        for v in self._views:
            for place in (place for place in v.erased if place.tensor in own):
                tensor = own[place.tensor]
                tensor.masked_fill_(_dropped_along(place, self.masked[v.group.name], tensor), 0)

    @torch.no_grad()
    def enforce(self, net: nn.Module | None = None) -> None:
        """Put the zeros back, in the network or in a copy of it with the same names (a moving average)."""
        own = _floats(net or self._net)
        for name in self._dropped:
            own[name].masked_fill_(self._dropped_in(name, own[name]), 0)

    @torch.no_grad()
    def enforce_on(self, optimizer: Optimizer) -> None:
        """Set what an optimizer remembers of masked places, such as momentum, to zero."""
        own = _floats(self._net)
        for name in self._dropped:
            for value in optimizer.state.get(own[name], {}).values():
                if isinstance(value, Tensor) and value.shape == own[name].shape:
                    value.masked_fill_(self._dropped_in(name, value), 0)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Give the network its stored numbers inside."""
        own = _floats(self._net)
        with torch.no_grad():
            for name in self._dropped:
                own[name].copy_(self._whole(name, own[name]))
        self._is_lifted = True
        try:
            yield
        finally:
            self._is_lifted = False
            self.enforce()

    def detach(self) -> None:
        """Give the network its stored numbers for good, and let go of it."""
        self.set({group: torch.zeros_like(mask) for group, mask in self.masked.items()})
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Return the masks and what they hide."""
        return {"masked": dict(self.masked), "stored": dict(self._stored)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; the network's own tensors come with the network's state."""
        own = _floats(self._net)
        self.masked = {group: state["masked"][group].cpu().clone() for group in self.masked}
        self._dropped = self._places_dropped()
        self._stored = {name: state["stored"][name].to(own[name]).clone() for name in self._dropped}
        self.enforce()

    def _hook(self, name: str) -> Any:
        def mask(gradient: Tensor) -> Tensor:
            if self._is_lifted or name not in self._dropped:
                return gradient
            return gradient.masked_fill(self._dropped_in(name, gradient), 0)

        return mask

    def _places_dropped(self) -> dict[str, Tensor]:
        """Tensor name -> where it is masked, a boolean that broadcasts to its shape."""
        own = _floats(self._net)
        dropped: dict[str, Tensor] = {}
        for group, places in self._places.items():
            if bool(self.masked[group].any()):
                for place in places:
                    here = _dropped_along(place, self.masked[group], own[place.tensor])
                    dropped[place.tensor] = dropped.get(place.tensor, torch.zeros_like(here)) | here
        return dropped

    def _dropped_in(self, name: str, tensor: Tensor) -> Tensor:
        """Where a tensor is masked, on that tensor's device; it is sent there once."""
        if self._dropped[name].device != tensor.device:
            self._dropped[name] = self._dropped[name].to(tensor.device)
        return self._dropped[name]

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor with what is hidden in it."""
        if name not in self._dropped:
            return tensor.detach()
        return torch.where(self._dropped_in(name, tensor), self._stored[name].to(tensor), tensor.detach())


def _dropped_along(place: View, masked: Tensor, tensor: Tensor) -> Tensor:
    dropped = torch.zeros(tensor.shape[place.axis], dtype=torch.bool)
    dropped[place.indices[masked].flatten()] = True
    return dropped.view([-1 if axis == place.axis else 1 for axis in range(tensor.dim())]).to(tensor.device)


def _floats(net: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point parameters and buffers by each of their names."""
    tensors = (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False))
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
