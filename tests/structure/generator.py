"""Random networks: operators picked one after another, each working on values that earlier ones made."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several; hypothesis or a seeded generator stands behind it."""


@dataclass(frozen=True)
class Value:
    """A value of the network under construction: its place among all values, and its example."""

    index: int
    example: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.example.shape)

    @property
    def channels(self) -> int:
        """Of a map (batch, channels, height, width) or of tokens and vectors, whose channels come last."""
        return self.shape[1] if self.example.dim() == 4 else self.shape[-1]


class RandomNet(nn.Module):
    """The steps of a builder, replayed."""

    def __init__(self, layers: nn.ModuleDict, parameters: nn.ParameterDict, steps: list[Any], outputs: list[int],
                 story: list[str]) -> None:
        super().__init__()
        self.layers, self.raw = layers, parameters
        self.steps, self.outputs, self.story = steps, outputs, story

    def __getitem__(self, name: str) -> Any:
        return self.layers[name] if name in self.layers else self.raw[name]

    def forward(self, image: Tensor) -> Any:
        values = [image]
        for compute, sources in self.steps:
            values.append(compute(self, *[values[i] for i in sources]))
        made = [values[i] for i in self.outputs]
        return made[0] if len(made) == 1 else {"first": made[0], "rest": made[1:]}


@dataclass
class Builder:
    """Collects layers and steps; every step is run at once on the examples, so that its shape is known."""

    pick: Pick
    values: list[Value] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    layers: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    raw: nn.ParameterDict = field(default_factory=nn.ParameterDict)
    story: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.layers[name] if name in self.layers else self.raw[name]

    def layer(self, layer: nn.Module) -> str:
        """Register a layer; its name."""
        name = f"{type(layer).__name__.lower()}{len(self.layers)}"
        self.layers[name] = layer
        return name

    def parameter(self, *shape: int) -> str:
        """Register a raw parameter; its name."""
        name = f"raw{len(self.raw)}"
        self.raw[name] = nn.Parameter(torch.randn(shape))
        return name

    def step(self, compute: Callable[..., Tensor], *sources: Value) -> Value:
        """Add a computation on earlier values."""
        with torch.no_grad():
            example = compute(self, *[v.example.clone() for v in sources])
        self.steps.append((compute, [v.index for v in sources]))
        self.values.append(Value(len(self.steps), example))
        return self.values[-1]

    def width(self) -> int:
        return self.pick([2, 3, 4, 6, 8, 12])

    def alike(self, value: Value) -> Value:
        """A value of the same shape, perhaps the same one."""
        return self.pick([v for v in self.values if v.shape == value.shape])


Op = Callable[[Builder, Value], Value]


def build(pick: Pick, kinds: dict[str, dict[str, Op]], count: int) -> RandomNet:
    """A random network of about `count` operators, in float32.

    Args:
        kinds: "map", "tokens", "vector" -> operators that read a value of that kind, by name.
    """
    b = Builder(pick)
    b.values.append(Value(0, torch.randn(2, 3, 8, 8)))
    stem = b.layer(nn.Conv2d(3, b.width(), 3, padding=1))
    b.step(lambda n, x: n[stem](x), b.values[0])
    for _ in range(count):
        value = pick(b.values[1:][-3:])
        name = pick(sorted(kinds[kind_of(value)]))
        b.story.append(f"{name}({value.index})")
        kinds[kind_of(value)][name](b, value)
    used = {i for _, sources in b.steps for i in sources}
    loose = [v for v in b.values if v.index not in used and v.index] or [b.values[-1]]
    outputs = [_classify(b, v).index for v in loose[-3:]]
    return RandomNet(b.layers, b.raw, b.steps, outputs, b.story).eval()


def kind_of(value: Value) -> str:
    return {4: "map", 3: "tokens", 2: "vector"}[value.example.dim()]


def _classify(b: Builder, value: Value) -> Value:
    """A small output from a value; sometimes the flattened map or tokens, as old networks do."""
    flat = value.shape[1:].numel() if isinstance(value.shape, torch.Size) else value.example[0].numel()
    if value.example.dim() == 2 or (flat < 300 and b.pick([False, True])):
        out = b.layer(nn.Linear(flat, 3))
        return b.step(lambda n, x: n[out](x.flatten(1)), value)
    out, axes = b.layer(nn.Linear(value.channels, 3)), (2, 3) if value.example.dim() == 4 else (1,)
    return b.step(lambda n, x: n[out](x.mean(axes)), value)
