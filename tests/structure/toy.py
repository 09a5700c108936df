"""How the toy networks are written down: named layers and a forward function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Layers, parameters and buffers by name, and a function that uses them."""

    def __init__(self, compute: Callable[..., Any], parts: dict[str, Any]) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.compute = compute

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute(self, *args, **kwargs)


@dataclass
class Toy:
    """One toy network.

    Attributes:
        build: makes the network; its parts' numbers come from torch's global generator.
        inputs: shapes of the example inputs, or a function that makes them at a batch size (None: the usual one).
        attention, allow_inexact: options of the analysis.
        batches: whether the network takes another batch size than the traced one.
    """

    build: Callable[[], nn.Module]
    inputs: Any = ((2, 3, 8, 8),)
    attention: str = "heads"
    allow_inexact: bool = False
    batches: bool = True

    def example(self, batch: int | None = None) -> Any:
        """Example inputs in float64, at another batch size where one is given."""
        if callable(self.inputs):
            return self.inputs(batch)
        return tuple(torch.randn(batch or shape[0], *shape[1:], dtype=torch.float64) for shape in self.inputs)


def toy(
    compute: Callable[..., Any],
    inputs: Any = None,
    *,
    attention: str = "heads",
    allow_inexact: bool = False,
    batches: bool = True,
    **parts: Callable[[], Any],
) -> Toy:
    """A toy from its forward function and its parts' constructors."""

    def build() -> nn.Module:
        return Net(compute, {name: make() for name, make in parts.items()})

    return Toy(build, inputs or ((2, 3, 8, 8),), attention, allow_inexact, batches)


class Head(nn.Module):
    """1x1 convolution to 16 channels, mean over the map, linear to 5 classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix, self.out = nn.Conv2d(channels, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(x).relu().mean((2, 3)))


def conv(c_in: int, c_out: int, **options: Any) -> Callable[[], nn.Conv2d]:
    """Constructor of a 3x3 convolution of padding 1."""
    return lambda: nn.Conv2d(c_in, c_out, 3, **{"padding": 1, **options})


def point(c_in: int, c_out: int, **options: Any) -> Callable[[], nn.Conv2d]:
    """Constructor of a 1x1 convolution."""
    return lambda: nn.Conv2d(c_in, c_out, 1, **options)


def head(channels: int) -> Callable[[], Head]:
    return lambda: Head(channels)


def linear(c_in: int, c_out: int, **options: Any) -> Callable[[], nn.Linear]:
    return lambda: nn.Linear(c_in, c_out, **options)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))
