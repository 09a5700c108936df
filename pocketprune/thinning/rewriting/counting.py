"""Rewriting the operators whose constants count channels."""

from __future__ import annotations

import math

from torch import fx

from pocketprune.graph.nodes import arguments
from pocketprune.structure.propagation.movement import CASTS, MOVEMENT
from pocketprune.structure.propagation.rules import argument
from pocketprune.thinning.modules import groups_left
from pocketprune.thinning.rewriting.adapting import Adapter, Builder, Rewrite, replaced, resized, selected
from pocketprune.thinning.rewriting.moving import rewrite_movement


def _convolution(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    weight = adapter.values[arguments(node)[1]]
    groups = groups_left(adapter.kept(weight).get(0), weight.shape[0], argument(node, node.args, node.kwargs, "groups"))
    return builder.copy(node, *replaced(node, groups=groups))


def _group_norm(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    source = adapter.values[arguments(node)[0]]
    groups = argument(node, node.args, node.kwargs, "num_groups")
    return builder.copy(
        node, *replaced(node, num_groups=groups_left(adapter.kept(source).get(1), source.shape[1], groups))
    )


def _layer_norm(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    shape = argument(node, node.args, node.kwargs, "normalized_shape")
    thinned = list(adapter.shape(adapter.values[arguments(node)[0]])[-len(shape) :])
    return builder.copy(node, *replaced(node, normalized_shape=thinned))


def _attention(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    """The scale stays that of the width the network was trained with."""
    scale = argument(node, node.args, node.kwargs, "scale")
    width = adapter.values[arguments(node)[0]].shape[-1]
    return builder.copy(node, node.args, {**node.kwargs, "scale": 1 / math.sqrt(width) if scale is None else scale})


def _creation(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    """A uniform constant is made at the thinned size."""
    sizes = argument(node, node.args, node.kwargs, "size")
    thinned = resized(adapter, sizes, adapter.shape(adapter.values[node]))
    if -1 in thinned:
        return selected(builder, builder.copy(node, node.args, node.kwargs), adapter.kept(adapter.values[node]))
    return builder.copy(node, *replaced(node, size=thinned))


def _write_slice(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    """slice_scatter: where the written part begins and ends among the kept positions."""
    source = adapter.values[arguments(node)[0]]
    dim = argument(node, node.args, node.kwargs, "dim") % source.dim
    kept = adapter.kept(adapter.values[node]).get(dim)
    if kept is None:
        return builder.copy(node, node.args, node.kwargs)
    start, end, _ = slice(
        argument(node, node.args, node.kwargs, "start"), argument(node, node.args, node.kwargs, "end")
    ).indices(source.shape[dim])
    return builder.copy(node, *replaced(node, start=int((kept < start).sum()), end=int((kept < end).sum())))


def _write_index(adapter: Adapter, node: fx.Node, builder: Builder) -> fx.Node:
    source = adapter.values[arguments(node)[0]]
    dim = argument(node, node.args, node.kwargs, "dim") % source.dim
    kept = adapter.kept(adapter.values[node]).get(dim)
    index = argument(node, node.args, node.kwargs, "index") % source.shape[dim]
    return builder.copy(node, *replaced(node, index=index if kept is None else int((kept < index).sum())))


REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
        _convolution,
    ),
    "group_norm": _group_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _layer_norm),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full"), _creation),
    "slice_scatter": _write_slice,
    "select_scatter": _write_index,
    **dict.fromkeys((*(MOVEMENT - CASTS), "pad", "constant_pad_nd"), rewrite_movement),
}
"""Operator name -> how its arguments change when channels go; the others need no change."""
