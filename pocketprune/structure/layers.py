"""Prunable layers: what a list of preserve ratios refers to, and what each ratio can remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, fx, nn

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.graph.nodes import arguments
from pocketprune.graph.tracing import ExampleInputs, TracedNet, describe, module_path, node_shape, operator_name
from pocketprune.structure.channel_groups import Structure, analyse, layer_name
from pocketprune.structure.cost import node_macs
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.ignoring import LEFT_ALONE, is_named
from pocketprune.structure.propagation import Contraction
from pocketprune.structure.propagation.rules import argument

SHARED_INPUTS = ("sample", "couple", "keep")
LAYERS = {"conv2d": frozenset({"conv2d"}), "all": frozenset({"conv1d", "conv2d", "conv3d", "linear"})}
"""Which layers count as prunable: PocketFlow's (Conv2d with groups=1), or every conv and linear layer."""

SAMPLABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Kinds of modules, none of their subclasses, that can read a subset of their input's channels."""


@dataclass(frozen=True)
class PrunableLayer:
    """One entry of a ratio list.

    Attributes:
        index: place in the list, from 0. name: path of the layer.
        channels, out_channels: input and output channels. kernel: spatial size. macs: per single input.
        input_from: the layers that write the input, or what else does.
        removable: whether a preserve ratio below 1 removes anything; `reason`: why not, or what is done instead.
        way: "private" (the input's channels are removed from everything that touches them), "sample", "couple" or
            "fixed".
    """

    index: int
    name: str
    channels: int
    out_channels: int
    kernel: tuple[int, ...]
    macs: int
    input_from: str
    removable: bool
    reason: str
    way: str
    layer: Contraction = field(repr=False)


def list_layers(
    net: nn.Module,
    example_inputs: ExampleInputs,
    shared_input: str = "sample",
    layers: str = "conv2d",
    *,
    ignore: Sequence[str] = (),
) -> list[PrunableLayer]:
    """The prunable layers in forward order: every Conv2d with groups=1.

    The first, and a last one that writes the output, count and stay whole. With layers="all" also other convolutions,
    but depthwise ones, and linear layers.

    Args:
        ignore: names of groups or layers that are to be left alone; these layers count and stay whole.

    Raises:
        UserError: unknown `shared_input`, `layers` or `ignore`, or a network that cannot be traced.
    """
    return layers_of(analyse(net, example_inputs, ignore=ignore), shared_input, layers)


def layers_of(structure: Structure, shared_input: str, layers: str = "conv2d") -> list[PrunableLayer]:
    """The prunable layers of an analysed network; see `list_layers`."""
    for name, value, accepted in (("shared_input", shared_input, SHARED_INPUTS), ("layers", layers, LAYERS)):
        if value not in accepted:
            raise UserError(f"{name}: '{value}' given{nearest(value, accepted)}")
    chosen = [c for c in structure.contractions if is_prunable_kind(c, layers)]
    last = structure.contractions[-1] if structure.contractions else None
    found = []
    for index, layer in enumerate(chosen):
        weight = node_shape(arguments(layer.node)[1])
        way, reason = _way(structure, layer, shared_input) if layer is not last else ("fixed", "it is the last layer")
        found.append(
            PrunableLayer(
                index=index,
                name=layer_name(layer),
                channels=weight[1] * layer.groups,
                out_channels=weight[0],
                kernel=weight[2:],
                macs=node_macs(structure, layer.node),
                input_from=_source(structure, layer),
                removable=way != "fixed",
                reason=reason,
                way=way,
                layer=layer,
            )
        )
    return found


def depthwise_layers(structure: Structure) -> list[PrunableLayer]:
    """The convolutions with one input channel in each group, which lose the channels that their readers do."""
    found: list[PrunableLayer] = []
    for layer in structure.contractions:
        if layer.carrier and layer.kind == "conv" and layer.plain and layer.weight is not None:
            weight = node_shape(arguments(layer.node)[1])
            bias = argument(layer.node, layer.node.args, layer.node.kwargs, "bias")
            if weight[1] == 1 and (bias is None or bias.op == "placeholder"):
                found.append(
                    PrunableLayer(
                        index=len(found),
                        name=layer_name(layer),
                        channels=layer.groups,
                        out_channels=weight[0],
                        kernel=weight[2:],
                        macs=node_macs(structure, layer.node),
                        input_from=_source(structure, layer),
                        removable=False,
                        reason="it is depthwise",
                        way="fixed",
                        layer=layer,
                    )
                )
    return found


def is_prunable_kind(layer: Contraction, layers: str) -> bool:
    """A convolution or linear layer, its weight and bias tensors of its own, that reads all channels it is given."""
    if operator_name(layer.node) not in LAYERS[layers] or layer.weight is None:
        return False
    plain = layer.groups == 1 or (layers == "all" and not layer.carrier)
    bias = argument(layer.node, layer.node.args, layer.node.kwargs, "bias")
    return plain and arguments(layer.node)[1].op == "placeholder" and (bias is None or bias.op == "placeholder")


def can_have_bias(traced: TracedNet, layer: Contraction) -> bool:
    """Whether a layer without a bias can be given one: it is what a plain module does."""
    path = layer_name(layer)
    if layer.weight == path or module_path(layer.node) != path:
        return False
    module = traced.net.get_submodule(path)
    plain = next(c for c in type(module).__mro__ if "forward" in vars(c)).__module__.startswith("torch.nn.modules")
    return plain and isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))


def _way(structure: Structure, layer: Contraction, shared_input: str) -> tuple[str, str]:
    """How the layer's input channels can be removed, and a word on it."""
    if layer.in_ids is None:
        return "fixed", "it reads the network's input"
    if is_reused(structure, layer):
        return "fixed", "its weight is used in several places"
    if is_named(layer_name(layer), structure.ignore):
        return "fixed", LEFT_ALONE
    groups = read_groups(structure, layer)
    numbers = readers(structure)
    alone = all(g.prunable and numbers[g.name] == 1 for g in groups) and _covers(structure, layer.in_ids, groups)
    if alone and _even(structure, layer.in_ids, layer.groups):
        return "private", ""
    if shared_input == "keep":
        return "fixed", _why_shared(groups)
    if shared_input == "sample" and layer.groups == 1 and can_sample(structure.traced.net, layer_name(layer)):
        return "sample", f"sampled: {_why_shared(groups)}"
    free = [g for g in groups if g.prunable] if shared_input == "couple" else []
    return ("couple", f"coupled: {_why_shared(groups)}") if free else ("fixed", _why_shared(groups))


def can_sample(net: nn.Module, path: str) -> bool:
    """Whether the layer at a path is a plain module that can be given a sampler."""
    try:
        return type(net.get_submodule(path)) in SAMPLABLE
    except AttributeError:
        return False


def is_reused(structure: Structure, layer: Contraction) -> bool:
    """Whether anything else reads the layer's weight: another layer, or any operator."""
    return layer.weight is not None and structure.traced.reader_count(layer.weight) > 1


def _why_shared(groups: Sequence[ChannelGroup]) -> str:
    pinned = next((g.reason for g in groups if not g.prunable), "")
    readers_ = sorted({c for g in groups for c in g.consumers})
    if pinned or len(readers_) < 2:
        return pinned or "its input's channels are not all alike"
    return f"{len(readers_)} layers read its input"


def read_groups(structure: Structure, layer: Contraction) -> list[ChannelGroup]:
    """The channel groups a layer reads, in forward order."""
    mine = set(structure.class_of(layer.in_ids).tolist()) if layer.in_ids is not None else set()
    return [g for g in structure.groups if mine & set(g.classes)]


def readers(structure: Structure) -> dict[str, int]:
    """Group name -> number of layers that read it."""
    counts = {g.name: 0 for g in structure.groups}
    for layer in structure.contractions:
        if layer.in_ids is not None and not layer.carrier:
            for group in read_groups(structure, layer):
                counts[group.name] += 1
    return counts


def _covers(structure: Structure, ids: Tensor, groups: Sequence[ChannelGroup]) -> bool:
    """Whether every input channel belongs to one of the groups."""
    known = {c for g in groups for c in g.classes}
    return set(structure.class_of(ids).tolist()) <= known


def _even(structure: Structure, ids: Tensor, groups: int) -> bool:
    """Whether every channel fills the same number of the layer's inputs (of each group of a grouped one)."""
    inside = len(ids) // groups
    counts = np.unique(structure.class_of(ids)[:inside], return_counts=True)[1]
    return len(set(counts.tolist())) == 1


def _source(structure: Structure, layer: Contraction) -> str:
    if layer.in_ids is None:
        return (
            "network input"
            if not isinstance(layer.source, fx.Node) or layer.source.op == "placeholder"
            else describe(layer.source)
        )
    producers = list(dict.fromkeys(p for g in read_groups(structure, layer) for p in g.producers))
    shown = " + ".join(producers[:3]) + (f" + {len(producers) - 3} more" if len(producers) > 3 else "")
    return shown or describe(layer.source)
