"""Masks on weights: zeros held in place in a network's own tensors.

The network stays a plain one: its forward, its names and its `state_dict` are what they were. Gradients are masked by
hooks on the parameters. Masks on channel groups (`pocketprune.compression`) may lie on the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.numerics.weight_patterns import pack, unpack
from pocketprune.sparsity.layers import sparse_layers


class WeightMasks:
    """The masks of some layers' weights, none at first.

    Attributes:
        masked: layer name -> where its weight is masked, a boolean of the weight's shape.

    Args:
        net: the network; its tensors are changed in place.
        layers: names of the layers that may be masked.
        kind: "hard", "soft" or "live", as in a `SparsityPolicy`.
    """

    def __init__(self, net: nn.Module, layers: list[str], kind: str) -> None:
        self._net, self._kind = net, kind
        self._layers = list(layers)
        self.masked: dict[str, Tensor] = {
            name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in self.weights().items()
        }
        self._hidden: dict[str, Tensor] = {}
        self._lifted = False
        own = self.weights()
        self._hooks = [own[name].register_hook(self._hook(name)) for name in layers if own[name].requires_grad]

    def weights(self, net: nn.Module | None = None) -> dict[str, Tensor]:
        """Return the weights that may be masked, of the network or of a copy of it, by the name of their layer."""
        found = sparse_layers(net or self._net)
        return {name: found[name] for name in self._layers}

    @torch.no_grad()
    def set(self, masked: Mapping[str, Tensor]) -> None:
        """Mask these weights of these layers, and no others of them.

        What a hard mask has erased stays zero. Otherwise what is hidden keeps its number, and what comes back gets it.
        """
        own = self.weights()
        for name, mask in masked.items():
            whole = self._whole(name, own[name])
            self.masked[name] = mask.to(own[name].device).clone()
            if self._kind != "hard":
                self._hidden[name] = whole.masked_fill(~self.masked[name], 0)
            own[name].copy_(whole.masked_fill(self.masked[name], 0))

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Give layers new weights, but for masked places; what these hide stays."""
        own = self.weights()
        for name, weight in weights.items():
            own[name].copy_(weight)
        self.enforce()

    @torch.no_grad()
    def enforce(self, net: nn.Module | None = None) -> None:
        """Put the zeros back, in the network or in a copy of it with the same names (a moving average)."""
        for name, weight in self.weights(net).items():
            weight.masked_fill_(self._on(name, weight), 0)

    @torch.no_grad()
    def enforce_on(self, optimizer: Optimizer) -> None:
        """Set what an optimizer remembers of masked places, such as momentum, to zero; live ones keep it."""
        for name, weight in self.weights().items() if self._kind != "live" else ():
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(self._on(name, value), 0)

    @torch.no_grad()
    def lift(self) -> None:
        """Give the network its hidden numbers back, until `settle`."""
        if not self._lifted:
            for name, weight in self.weights().items():
                weight.copy_(self._whole(name, weight))
            self._lifted = True

    @torch.no_grad()
    def settle(self) -> None:
        """Hide the masked numbers again as they are now."""
        if self._lifted:
            self._lifted = False
            for name, weight in self.weights().items():
                if name in self._hidden:
                    self._hidden[name] = weight.masked_fill(~self.masked[name], 0)
        self.enforce()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Give the network its hidden numbers inside."""
        self.lift()
        try:
            yield
        finally:
            self.settle()

    def detach(self) -> None:
        """Give the network its hidden numbers for good, and let go of it."""
        self.set({name: torch.zeros_like(mask) for name, mask in self.masked.items()})
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, eight to a byte, and the numbers that they hide."""
        return {
            "masked": {name: pack(mask) for name, mask in self.masked.items()},
            "hidden": {name: hidden[self.masked[name]] for name, hidden in self._hidden.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; the network's own tensors come with the network's state."""
        for name, weight in self.weights().items():
            self.masked[name] = unpack(state["masked"][name], weight.shape).to(weight.device)
        self._hidden = {}
        for name, values in state["hidden"].items():
            self._hidden[name] = torch.zeros_like(self.weights()[name]).detach()
            self._hidden[name][self.masked[name]] = values.to(self._hidden[name])
        self.enforce()

    def _hook(self, name: str) -> Any:
        def mask(gradient: Tensor) -> Tensor:
            if self._lifted or self._kind == "live":
                return gradient
            return gradient.masked_fill(self._on(name, gradient), 0)

        return mask

    def _on(self, name: str, tensor: Tensor) -> Tensor:
        """Return where a layer is masked, on a tensor's device; it is sent there once."""
        if self.masked[name].device != tensor.device:
            self.masked[name] = self.masked[name].to(tensor.device)
        return self.masked[name]

    def _whole(self, name: str, weight: Tensor) -> Tensor:
        """Return a weight with what is hidden in it."""
        if name not in self._hidden:
            return weight.detach()
        return torch.where(self._on(name, weight), self._hidden[name].to(weight), weight.detach())
