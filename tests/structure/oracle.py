"""The oracle: a thinned network is right when it equals the original with the dropped channels' columns at zero.

The reference is the original network, run by its own code, the numbers of the dropped channels' slices in its
consumers' weights set to zero. It uses nothing of the library but the list of slices of each group.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.graph.tracing import operator_name, split_inputs
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.recipes import recipe_for
from pocketprune.thinning.removal import thin

TOLERANCE = 1e-9

COUNTS: Counter[str] = Counter()
"""Networks, removals and groups put through the oracle in this test session."""
OPERATORS: Counter[str] = Counter()
"""ATen operators met by those networks -> in how many networks."""


def randomise(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network in float64, every statistic and every scale, shift and weight away from its neutral value."""
    net = net.double()

    def uniform(t: Tensor, low: float, high: float) -> None:
        t.data.copy_(torch.rand(t.shape, generator=generator, dtype=t.dtype) * (high - low) + low)

    for parameter in net.parameters():
        if parameter.dim() < 2 or bool((parameter == parameter.reshape(-1)[0]).all()):
            uniform(parameter, 0.4, 1.4)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.5, 1.5)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            uniform(module.bias, -0.5, 0.5)
    return net.eval()


def reads_along(net: nn.Module, name: str, axis: int) -> bool:
    """Whether this axis of a tensor may run over what its layer reads."""
    path, _, leaf = name.rpartition(".")
    module = net.get_submodule(path)
    if leaf == "weight" and isinstance(module, nn.modules.conv._ConvTransposeNd):
        return axis == 0
    if leaf == "weight" and isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
        return axis == 1
    return getattr(module, leaf).dim() > 1


def zeroed(net: nn.Module, dropped: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> nn.Module:
    """A copy of the original network whose consumers read nothing of the dropped channels.

    Where a channel is also read by a product of two activations, which has no columns, its producers are zeroed.
    """
    copied = copy.deepcopy(net)
    own = dict(copied.named_parameters(remove_duplicate=False)) | dict(copied.named_buffers(remove_duplicate=False))
    for group, channels in dropped:
        everything = bool(group.products)
        for (name, axis), indices in group.slices(channels).items():
            if everything or name in group.consumers or reads_along(copied, name, axis):
                own[name].data.index_fill_(axis, torch.tensor(indices), 0)
    return copied


def drop_some(
    structure: Structure, generator: torch.Generator, groups: int | None = None
) -> list[tuple[ChannelGroup, list[int]]]:
    """Random channels of some random prunable groups; every group keeps at least one."""
    prunable = [g for g in structure.groups if g.prunable]
    order = torch.randperm(len(prunable), generator=generator).tolist()
    chosen = [prunable[i] for i in sorted(order[:groups])]

    def channels(group: ChannelGroup) -> list[int]:
        count = int(torch.randint(1, group.size, (), generator=generator))
        return sorted(torch.randperm(group.size, generator=generator)[:count].tolist())

    return [(group, channels(group)) for group in chosen]


def kept_after(dropped: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> dict[str, list[int]]:
    return {group.name: [i for i in range(group.size) if i not in set(channels)] for group, channels in dropped}


def thinned_by(structure: Structure, dropped: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> nn.Module:
    """The network without these channels."""
    return thin(structure, recipe_for(structure, kept_after(dropped)))


def outputs(net: nn.Module, inputs: Any) -> list[Tensor]:
    """The network's output tensors in evaluation mode."""
    args, kwargs = split_inputs(inputs)
    with torch.no_grad():
        return [t for t in pytree.tree_leaves(net.eval()(*args, **kwargs)) if isinstance(t, Tensor)]


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ."""
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")

    def relative(x: Tensor, y: Tensor) -> float:
        if not x.numel():
            return 0.0
        return float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp_min(1e-12))

    return max((relative(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def analysed(net: nn.Module, inputs: Any, *, check: bool = True, **options: Any) -> Structure:
    """The network's structure, its groups checked by permutation; counts it for the report."""
    structure = analyse(net, inputs, **options)
    before = sum(g.prunable for g in structure.groups)
    if check:
        check_groups(structure, structure.traced.example)
    COUNTS["groups refused by permutation"] += before - sum(g.prunable for g in structure.groups)
    COUNTS["networks"] += 1
    COUNTS["groups"] += before
    OPERATORS.update({operator_name(n) for n in structure.traced.call_nodes()})
    return structure


def assert_exact(
    structure: Structure, dropped: Sequence[tuple[ChannelGroup, Sequence[int]]], inputs: Sequence[Any]
) -> nn.Module:
    """Remove the channels and compare with the zeroed original on each of the inputs; the thinned network."""
    thinned = thinned_by(structure, dropped)
    reference = zeroed(structure.traced.net, dropped)
    for given in inputs:
        made, expected = outputs(thinned, given), outputs(reference, given)
        gap = difference(made, expected)
        names = {g.name: list(c) for g, c in dropped}
        assert gap <= TOLERANCE, f"differs by {gap:.3g} after dropping {names}"
    COUNTS["removals"] += 1
    COUNTS["groups thinned"] += len(dropped)
    return thinned
