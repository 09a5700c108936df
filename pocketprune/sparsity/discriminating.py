"""Discrimination-aware channel pruning (Zhuang et al. 2018): channels are chosen by what tells the classes apart.

    for each part of the network:
        train it with the loss of an auxiliary classifier on the part's features beside its own
        for each layer of the part:
            start without input channels; add the one whose weights have the largest gradient; train the layer; again

The loss of a layer joins how far its output is from the dense network's and the auxiliary classifier's. Chosen channels
come back with their own weights. What is not chosen is zero, and can be removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.layers import layers_of, read_groups
from pocketprune.training.objectives import Classification, Objective


@dataclass(frozen=True)
class Prunable:
    """A layer whose input channels are one group that no other layer reads."""

    name: str
    group: ChannelGroup


def prunable_layers(structure: Structure) -> list[Prunable]:
    """Return the convolutions that the method can treat, in forward order.

    Raises:
        UserError: there are none.
    """
    modules = dict(structure.traced.net.named_modules())
    found = []
    for layer in layers_of(structure, "keep"):
        groups = read_groups(structure, layer.layer) if layer.removable else []
        if len(groups) == 1 and groups[0].size == layer.channels and type(modules.get(layer.name)) is nn.Conv2d:
            found.append(Prunable(layer.name, groups[0]))
    if not found:
        raise UserError("no convolution alone reads a channel group", argument="net")
    return found


def parts_of(layers: Sequence[Prunable], nb_parts: int) -> list[list[Prunable]]:
    """Return the layers in so many parts of nearly equal length.

    Raises:
        UserError: there are more parts than layers.
    """
    if nb_parts > len(layers):
        raise UserError(f"{nb_parts} given; the network has {len(layers)} such layers", argument="nb_parts")
    ends = [round(len(layers) * number / nb_parts) for number in range(nb_parts + 1)]
    return [list(layers[first:last]) for first, last in pairwise(ends)]


class Head(nn.Module):
    """An auxiliary classifier: pooled features, batch norm, ReLU, a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(channels), nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (b, classes) of features (b, c, h, w)."""
        logits: Tensor = self.linear(F.relu(self.norm(features.mean((2, 3)))))
        return logits


class WithClassifiers(nn.Module):
    """A network with an auxiliary classifier on what some of its layers put out; it computes what the network does.

    Args:
        net: the network, trained in place.
        places: the layers, one for each part of the network.
        example: inputs.
        seed: of the classifiers' first weights.
    """

    def __init__(self, net: nn.Module, places: Sequence[str], example: Tensor, seed: int = 0) -> None:
        super().__init__()
        self.net, self._places, self._features = net, list(places), dict[str, Tensor]()
        self._hooks = [net.get_submodule(place).register_forward_hook(self._keep(place)) for place in places]
        with torch.no_grad(), evaluation_mode(net):
            classes = self(example).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            heads = [Head(self._features[place].shape[1], classes) for place in places]
        self.heads = nn.ModuleList(heads).to(device_of(net))

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits."""
        logits: Tensor = self.net(images)
        return logits

    def auxiliary(self, part: int, labels: Tensor) -> Tensor:
        """Return the loss of a part's classifier on the images of the last forward."""
        return F.cross_entropy(self.heads[part](self._features[self._places[part]]).float(), labels)

    def detach(self) -> None:
        """Let go of the network."""
        for hook in self._hooks:
            hook.remove()
        self._features.clear()

    def _keep(self, place: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._features[place] = output

        return keep


@dataclass(frozen=True)
class PartObjective:
    """The network's loss and that of one part's auxiliary classifier."""

    extended: WithClassifiers
    part: int
    objective: Objective = field(default_factory=Classification)

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of both losses, and the network's logits."""
        loss, logits = self.objective(net, images, labels)
        return loss + self.extended.auxiliary(self.part, labels), logits


def choose_channels(
    extended: WithClassifiers,
    part: int,
    name: str,
    dense: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    count: int,
    *,
    steps: int,
    lrn_rate: float,
) -> Tensor:
    """Choose a layer's input channels greedily, and train its weight meanwhile. Return where it is masked, (c,).

    Args:
        extended: the network with its classifiers; the layer's weight is changed in place.
        part: whose classifier counts.
        name: of the layer.
        dense: the network whose features are to be kept.
        batches: images and labels without an end.
        count: channels to be chosen.
        steps: training steps, by Adam, after each chosen channel.
        lrn_rate: of these steps.
    """
    weight = _weight(extended.net, name)
    own = weight.detach().clone()
    masked = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    optimizer = torch.optim.Adam([weight], lr=lrn_rate)
    with evaluation_mode(extended), evaluation_mode(dense), _outputs(extended.net, dense, name) as outputs:
        with torch.no_grad():
            weight.zero_()
        for _ in range(count):
            gradient = _gradient(extended, part, dense, outputs, weight, next(batches))
            norms = gradient.transpose(0, 1).flatten(1).norm(dim=1)
            best = int(norms.masked_fill(~masked, -1.0).argmax())
            masked[best] = False
            with torch.no_grad():
                weight[:, best] = own[:, best]
            for _ in range(steps):
                gradient = _gradient(extended, part, dense, outputs, weight, next(batches))
                weight.grad = gradient.masked_fill(masked.view(1, -1, 1, 1), 0)
                optimizer.step()
    weight.grad = None
    return masked


def _gradient(
    extended: WithClassifiers,
    part: int,
    dense: nn.Module,
    outputs: Mapping[str, Tensor],
    weight: nn.Parameter,
    batch: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the gradient of the joint loss; the distance is relative to the mean square of the dense output."""
    images, labels = batch
    with torch.no_grad():
        dense(images)
    extended(images)
    wanted = outputs["dense"]
    distance = (outputs["pruned"] - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)
    return torch.autograd.grad(distance + extended.auxiliary(part, labels), weight)[0]


@contextmanager
def _outputs(net: nn.Module, dense: nn.Module, name: str) -> Iterator[dict[str, Tensor]]:
    """Yield what a layer puts out in the pruned and the dense network, filled anew by each forward."""
    found: dict[str, Tensor] = {}

    def keeping(key: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[key] = output

        return keep

    places = {"pruned": net.get_submodule(name), "dense": dense.get_submodule(name)}
    hooks = [module.register_forward_hook(keeping(key)) for key, module in places.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _weight(net: nn.Module, name: str) -> nn.Parameter:
    weight = net.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    return weight
