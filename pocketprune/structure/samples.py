"""How many single inputs an example holds: found out by giving the network a part of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.graph.nodes import arguments, node_shape, operator_name, tensors_in
from pocketprune.graph.tracing import TracedNet, copied
from pocketprune.structure.batches import undisturbed
from pocketprune.structure.comparing import all_alike


def sample_count(traced: TracedNet) -> int:
    """How many single inputs the example holds: the length of the axis along which the network takes them one by one.

    That is the first axis of the first tensor, unless the network shows that it is another's, the second (sequences
    before batches), or none (a single image without a batch axis).
    """
    if not traced.samples:
        traced.samples = _count_samples(traced)
    return traced.samples


APART_ALONG, APART, TAKEN, FAILED = 3, 2, 1, 0
"""What becomes of a part of the example: its own part of the output (along the same axis), any output, none."""


def _count_samples(traced: TracedNet) -> int:
    """The length of the first axis along which each part of the example gives its own part of the output."""
    tensors = tensors_in(traced.example)
    axes = dict.fromkeys((t.shape[axis], axis) for axis in (0, 1) for t in tensors if t.dim() > axis)
    batchless = any(map(_has_no_batch, traced.call_nodes()))
    best, count = FAILED, 1
    with torch.no_grad(), undisturbed(traced):
        whole = traced.net(*copied(traced.example[0]), **copied(traced.example[1]))
        for size, axis in axes:
            fate = _fate_of_part(traced, whole, size, axis)
            doubtful = (fate == TAKEN and (axis or batchless)) or (axis and batchless)
            if fate > best and not doubtful:
                best, count = fate, size
            if best == APART_ALONG or (best >= APART and axis):
                break
    return count


def _has_no_batch(node: fx.Node) -> bool:
    """Whether a layer that can do without a batch axis is given none."""
    name = operator_name(node)
    if name in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        return len(node_shape(arguments(node)[0])) < len(node_shape(arguments(node)[1]))
    return name in ("lstm", "gru", "rnn_tanh", "rnn_relu") and operator_name(arguments(node)[0]) == "unsqueeze"


def _fate_of_part(traced: TracedNet, whole: Any, size: int, axis: int) -> int:
    """What becomes of the last of the example along an axis; of one alone, of that one twice."""
    index = torch.tensor([size - 1] if size > 1 else [0, 0])

    def part(value: Any) -> Any:
        cut = isinstance(value, Tensor) and value.dim() > axis and value.shape[axis] == size
        return value.index_select(axis, index.to(value.device)) if cut else copied(value)

    args, kwargs = pytree.tree_map(part, traced.example)
    try:
        made = traced.net(*args, **kwargs)
    except Exception:  # a network's forward can raise anything at a size that it is not made for
        return FAILED
    pairs = list(zip(tensors_in(whole), tensors_in(made), strict=False))
    found = [_cut_axis(before, after, size, len(index)) for before, after in pairs]
    places = [place for place in found if place is not None]
    if not pairs or len(places) < len(pairs):
        return TAKEN
    parts = [before.index_select(p, index.to(before.device)) for (before, _), p in zip(pairs, places, strict=True)]
    if not all_alike(parts, made, 1e-3):
        return TAKEN
    return APART_ALONG if axis in places else APART


def _cut_axis(whole: Tensor, part: Tensor, size: int, left: int) -> int | None:
    """The one axis that became shorter (or longer) from `size` to `left`."""
    if whole.dim() != part.dim():
        return None
    axes = [d for d in range(whole.dim()) if whole.shape[d] != part.shape[d]]
    fits = len(axes) == 1 and whole.shape[axes[0]] == size and part.shape[axes[0]] == left
    return axes[0] if fits else None
