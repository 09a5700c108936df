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
    """The steps of a builder, replayed.

    Attributes:
        inputs: names of its inputs, in order.
        story: the operators it was composed of, in order, each with the value it works on.
        keywords: whether it is called with a dict of its inputs.
    """

    def __init__(self, b: Builder, outputs: list[int], keywords: bool) -> None:
        super().__init__()
        self.layers, self.raw = b.layers, b.raw
        for name, buffer in b.buffers.items():
            self.register_buffer(name, buffer)
        self.inputs, self.steps, self.story = b.inputs, b.steps, b.story
        self.outputs, self.keywords = outputs, keywords

    def __getitem__(self, name: str) -> Any:
        return found(name, self.layers, self.raw, self._buffers)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        values = [*args, *(kwargs[name] for name in self.inputs if name in kwargs)]
        for compute, sources in self.steps:
            values.append(compute(self, *[values[i] for i in sources]))
        made = [values[i] for i in self.outputs]
        return made[0] if len(made) == 1 else {"first": made[0], "rest": made[1:]}

    def example(self, batch: int, generator: torch.Generator) -> Any:
        """Example inputs in float64."""
        drawn = {name: draw(name, batch, generator) for name in self.inputs}
        return drawn if self.keywords else tuple(drawn.values())


WORDS = 9
INPUTS = {"image": (3, 8, 8), "map": (4, 4, 4), "tokens": (5, 6), "vector": (7,), "words": (6,)}
"""Inputs a network may have -> their shapes without the batch axis; words are integers below `WORDS`."""


def draw(name: str, batch: int, generator: torch.Generator) -> Tensor:
    """Numbers for an input of this name."""
    if name == "words":
        return torch.randint(WORDS, (batch, *INPUTS[name]), generator=generator)
    return torch.randn(batch, *INPUTS[name], dtype=torch.float64, generator=generator)


def found(name: str, *places: Any) -> Any:
    """What the first place that knows the name holds there."""
    return next(place[name] for place in places if name in place)


@dataclass
class Builder:
    """Collects layers and steps; every step is run at once on the examples, so that its shape is known."""

    pick: Pick
    values: list[Value] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    layers: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    raw: nn.ParameterDict = field(default_factory=nn.ParameterDict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return found(name, self.layers, self.raw, self.buffers)

    def input(self, name: str) -> Value:
        """One of the network's inputs."""
        example = draw(name, 2, torch.Generator().manual_seed(0))
        example = example if name == "words" else example.float()
        self.inputs.append(name)
        self.values.append(Value(len(self.values), example))
        return self.values[-1]

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

    def buffer(self, buffer: Tensor) -> str:
        """Register a buffer; its name."""
        name = f"buffer{len(self.buffers)}"
        self.buffers[name] = buffer
        return name

    def step(self, compute: Callable[..., Tensor], *sources: Value) -> Value:
        """Add a computation on earlier values."""
        with torch.no_grad():
            example = compute(self, *[v.example.clone() for v in sources])
        self.steps.append((compute, [v.index for v in sources]))
        self.values.append(Value(len(self.values), example))
        return self.values[-1]

    def width(self) -> int:
        return self.pick([2, 3, 4, 6, 8, 12])

    def alike(self, value: Value) -> Value:
        """A value of the same shape, perhaps the same one."""
        return self.pick([v for v in self.values if v.shape == value.shape])


Op = Callable[[Builder, Value], Value]


def build(pick: Pick, kinds: dict[str, dict[str, Op]], count: int) -> RandomNet:
    """A random network of about `count` operators, in float32, for one to three inputs.

    Args:
        kinds: "map", "tokens", "vector" -> operators that read a value of that kind, by name.
    """
    b = Builder(pick)
    names = ["image", *pick([[], [], [], ["map"], ["tokens"], ["vector"], ["words"], ["tokens", "vector"]])]
    for value in [b.input(name) for name in names]:
        stem(b, value)
    for _ in range(count):
        value = pick(b.values[len(names) :][-3:])
        name = pick(sorted(kinds[kind_of(value)]))
        b.story.append(f"{name}({value.index})")
        kinds[kind_of(value)][name](b, value)
    used = {i for _, sources in b.steps for i in sources}
    loose = [v for v in b.values if v.index not in used] or [b.values[-1]]
    outputs = [_classify(b, v).index for v in loose[-3:]]
    return RandomNet(b, outputs, pick([False, True])).eval()


def stem(b: Builder, value: Value) -> Value:
    """The first layer on an input; of an image sometimes one that makes tokens."""
    if value.example.dtype is torch.int64:
        layer: nn.Module = nn.Embedding(WORDS, b.width())
    elif value.example.dim() < 4:
        layer = nn.Linear(value.channels, b.width())
    elif b.inputs[value.index] == "image" and b.pick([False, False, True]):
        layer = nn.Sequential(nn.Conv2d(3, b.width(), 4, 4), nn.Flatten(2))
    else:
        layer = nn.Conv2d(value.channels, b.width(), 3, padding=1)
    name = b.layer(layer)
    if isinstance(layer, nn.Sequential):
        return b.step(lambda n, x: n[name](x).transpose(1, 2), value)
    return b.step(lambda n, x: n[name](x), value)


def kind_of(value: Value) -> str:
    return {4: "map", 3: "tokens", 2: "vector"}[value.example.dim()]


def _classify(b: Builder, value: Value) -> Value:
    """A small output from a value; sometimes the flattened map or tokens, as old networks do."""
    flat = value.example[0].numel()
    if value.example.dim() == 2 or (flat < 300 and b.pick([False, True])):
        out = b.layer(nn.Linear(flat, 3))
        return b.step(lambda n, x: n[out](x.flatten(1)), value)
    out, axes = b.layer(nn.Linear(value.channels, 3)), (2, 3) if value.example.dim() == 4 else (1,)
    return b.step(lambda n, x: n[out](x.mean(axes)), value)
