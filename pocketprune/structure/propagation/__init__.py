"""Carrying channel identities through a traced network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.graph.nodes import arguments, operator_of
from pocketprune.graph.tracing import TracedNet, operator_name
from pocketprune.structure.propagation import (
    contraction,
    elementwise,
    joining,
    movement,
    normalisation,
    products,
    reduction,
)
from pocketprune.structure.propagation.rules import (
    REFUSALS,
    Contraction,
    Rule,
    State,
    identified_in,
    opaque_result,
)
from pocketprune.structure.propagation.statistics import mix_statistics_of_weights
from pocketprune.structure.propagation.values import Identified, Identities, Slice, varying

__all__ = ["REFUSALS", "RULES", "Contraction", "Identified", "Identities", "Slice", "State", "propagate", "varying"]


def _table(names: Iterable[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


RULES: dict[str, Rule] = {
    **_table(movement.MOVEMENT, movement.move),
    **_table(("tril", "triu"), movement.positional),
    **_table(("pad", "constant_pad_nd"), joining.pad),
    **_table(("cat", "concat", "concatenate", "stack"), joining.concatenate),
    "slice_scatter": joining.write_slice,
    "select_scatter": joining.write_index,
    **_table(elementwise.ELEMENTWISE, elementwise.elementwise),
    "glu": elementwise.gated_halves,
    **_table(
        (
            "batch_norm",
            "instance_norm",
            "_native_batch_norm_legit_no_training",
            "native_batch_norm",
            "_native_batch_norm_legit",
            "cudnn_batch_norm",
            "prelu",
            "_prelu_kernel",
        ),
        normalisation.batch_norm,
    ),
    **_table(("layer_norm", "native_layer_norm", "rms_norm"), normalisation.layer_norm),
    **_table(("group_norm", "native_group_norm"), normalisation.group_norm),
    **_table(("_weight_norm", "_weight_norm_interface"), normalisation.weight_norm),
    **_table(reduction.REDUCTION, reduction.reduction),
    **_table(reduction.SPATIAL, reduction.spatial),
    **_table(reduction.ALONG_ONE_AXIS, reduction.along_one_axis),
    **_table(
        ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        contraction.convolution,
    ),
    "linear": contraction.linear,
    "embedding": contraction.embedding,
    **_table(("matmul", "mm", "bmm", "mv", "dot", "vdot"), products.matmul),
    **_table(("addmm", "baddbmm"), products.added_product),
    "einsum": products.einsum,
    "scaled_dot_product_attention": products.attention,
}
"""Operator name (with its overload where that matters) -> rule. A new operator is one line here and, at most, one
function; an operator that is not listed pins what it touches."""

_FOLDED = 1 << 22
"""Constants of up to this many elements are computed while propagating, so that they can serve as indices."""


def propagate(
    traced: TracedNet, attention: str = "heads", allow_inexact: bool = False
) -> tuple[State, dict[fx.Node, Any]]:
    """Run the graph once on identity tensors.

    Returns:
        The state (identities, contractions) and every node's value: `Identified`, a tuple of them, or a number.
    """
    state = State(Identities(), attention, allow_inexact, tensor_of_node=dict(traced.tensor_names))
    values = _placeholders(traced, state)
    for node in traced.call_nodes():
        values[node] = _value(state, node, values)
    mix_statistics_of_weights(state, values)
    for value in identified_in(fx.map_arg(traced.output_node.args, values.__getitem__)):
        for facet in value.facets:
            state.identities.pin(facet, "network output")
    return state, values


def rule_of(node: fx.Node) -> Rule | None:
    """The rule for a node's operator."""
    name = operator_name(node)
    return RULES.get(f"{name}.{getattr(node.target, '_overloadname', '')}") or RULES.get(name)


def _placeholders(traced: TracedNet, state: State) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    own, facets = traced.named_tensors(), {}
    buffers = dict(traced.net.named_buffers(remove_duplicate=False))
    for node, name in traced.tensor_names.items():
        if name not in facets:
            facets[name] = state.identities.of_tensor(name, own[name].shape)
        data = buffers[name].detach().cpu() if name in buffers else None
        values[node] = Identified(tuple(own[name].shape), facets[name], data, constant=True)
    for node, tensor in traced.constants.items():
        values[node] = _generated(state, node, tensor)
    for node in traced.input_nodes:
        values[node] = opaque_result(node, origin="a network input")
    return values


def _generated(state: State, node: fx.Node, tensor: Tensor) -> Identified:
    """A constant the network makes itself: free to shrink along every axis."""
    return Identified(
        tuple(tensor.shape), state.identities.generated(tensor.shape, node), tensor.detach().cpu(), constant=True
    )


def _value(state: State, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg(arguments(node), values.__getitem__), fx.map_arg(node.kwargs, values.__getitem__)
    name, tensors = operator_name(node), identified_in((args, kwargs))
    if name == "getitem":
        return args[0][args[1]]
    if name in ("sym_size", "size"):
        return args[0].shape[args[1]]
    if name in ("sym_numel", "numel"):
        return math.prod(args[0].shape)
    if not tensors:
        made = operator_of(node)(*args, **kwargs)
        return _generated(state, node, made) if isinstance(made, Tensor) else made
    if name.startswith("new_"):
        return _new(state, node)
    rule = rule_of(node)
    made = rule(state, node, args, kwargs) if rule else state.opaque(node, tensors, "unknown")
    if all(value.constant for value in tensors):
        _fold(node, args, kwargs, made)
    return made


def _new(state: State, node: fx.Node) -> Identified:
    result: Identified = opaque_result(node)
    result.facets, result.constant = state.identities.generated(result.shape, node), True
    return result


def _fold(node: fx.Node, args: Any, kwargs: Any, made: Any) -> None:
    """Mark what follows from constants as constant, with its numbers where they are known."""
    results = identified_in(made)
    for value in results:
        value.constant = True
    tensors = identified_in((args, kwargs))
    if any(v.data is None or v.data.numel() > _FOLDED for v in tensors) or any(
        math.prod(v.shape) > _FOLDED for v in results
    ):
        return
    numbers = pytree.tree_map(
        lambda v: v.data if isinstance(v, Identified) else v,
        (args, kwargs),
        is_leaf=lambda v: isinstance(v, Identified),
    )
    computed = operator_of(node)(*numbers[0], **numbers[1])
    for value, data in zip(results, pytree.tree_leaves(computed), strict=False):
        value.data = data.cpu()
