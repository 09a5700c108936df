"""Rewriting the operators whose constants count channels."""
from __future__ import annotations

import math

import torch
from torch import fx

from .adapting import Adapter, Builder, Rewrite, replaced, resized
from .moving import rewrite_movement
from .propagation.contraction import removes_whole_groups
from .propagation.movement import MOVEMENT
from .propagation.rules import argument


def _convolution(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    groups = argument(node, node.args, node.kwargs, "groups")
    source = adapter.values[node.args[0]]
    if removes_whole_groups(source.shape[1], groups):
        groups = adapter.shape(source)[1] // (source.shape[1] // groups)
    args, kwargs = replaced(node, groups=groups)
    return builder.copy(node, args, kwargs)


def _group_norm(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    source = adapter.values[node.args[0]]
    groups, channels = argument(node, node.args, node.kwargs, "num_groups"), source.shape[1]
    kept = adapter.kept(source).get(1, torch.arange(channels))
    present = torch.unique(kept // (channels // groups))
    args, kwargs = replaced(node, num_groups=len(present))
    return builder.copy(node, args, kwargs)


def _layer_norm(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    shape = argument(node, node.args, node.kwargs, "normalized_shape")
    args, kwargs = replaced(node, normalized_shape=list(adapter.shape(adapter.values[node.args[0]])[-len(shape):]))
    return builder.copy(node, args, kwargs)


def _attention(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    """The scale stays that of the width the network was trained with."""
    scale = argument(node, node.args, node.kwargs, "scale")
    width = adapter.values[node.args[0]].shape[-1]
    return builder.copy(node, node.args,
                        {**node.kwargs, "scale": 1 / math.sqrt(width) if scale is None else scale})


def _creation(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    sizes = argument(node, node.args, node.kwargs, "size")
    args, kwargs = replaced(node, size=resized(adapter, sizes, adapter.shape(adapter.values[node])))
    return builder.copy(node, args, kwargs)


REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split(), _convolution),
    "group_norm": _group_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys("zeros ones full empty new_zeros new_ones new_full".split(), _creation),
    **dict.fromkeys((*MOVEMENT, "pad", "constant_pad_nd"), rewrite_movement),
}
"""Operator name -> how its arguments change when channels go; the others need no change."""
